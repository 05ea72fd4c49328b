from __future__ import annotations

from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.load.payloads import (
    VARIANTS,
    Payloads,
    SharedRequests,
    WireTensor,
    make_requests,
    wire_messages,
)
from bench.load.plan import Pictures
from protos import grpc_service_pb2 as pb
from server.client.client import RemoteModel, RemoteTensor
from server.client.endpoint import ServerRefused
from server.errors import ConfigError

RANDOM = Pictures()
PIXELS = RemoteTensor("image", "UINT8", (4, 5, 3))


def model(*inputs: RemoteTensor, max_batch: int = 16) -> RemoteModel:
    return RemoteModel("net", "scripted", max_batch, inputs, ())


def first(target: RemoteModel, images: int, pictures: Pictures = RANDOM) -> WireTensor:
    return make_requests(target, (images,), pictures, seed=0)[images][0][0]


def array(tensor: WireTensor, dtype: str) -> np.ndarray:
    return np.frombuffer(tensor.raw, dtype).reshape(tensor.shape)


@pytest.mark.parametrize(
    ("datatype", "dtype", "top"),
    [
        ("UINT8", "u1", 255),
        ("INT8", "i1", 127),
        ("INT64", "<i8", 255),
        ("BOOL", "?", 1),
        ("FP16", "<f2", 1),
        ("FP32", "<f4", 1),
        ("FP64", "<f8", 1),
    ],
)
def test_random_input_has_the_models_type_and_shape(datatype: str, dtype: str, top: float) -> None:
    values = array(first(model(RemoteTensor("x", datatype, (64, 3))), 5), dtype)

    assert values.shape == (5, 64, 3)
    assert values.min() >= 0
    assert values.max() <= top
    assert len(np.unique(values)) > 1


def test_requests_of_one_size_differ_so_that_no_cache_answers_them() -> None:
    variants = make_requests(model(PIXELS), (2,), Pictures(), seed=0)[2]

    assert len({tensors[0].raw for tensors in variants}) == VARIANTS


def test_a_seed_gives_the_same_input_again_and_another_gives_other() -> None:
    assert make_requests(model(PIXELS), (1,), Pictures(), 5) == make_requests(
        model(PIXELS), (1,), Pictures(), 5
    )
    assert make_requests(model(PIXELS), (1,), Pictures(), 5) != make_requests(
        model(PIXELS), (1,), Pictures(), 6
    )


def test_zeros_are_zeros() -> None:
    assert not array(first(model(PIXELS), 3, Pictures("zeros")), "u1").any()


def test_every_input_of_a_model_is_filled() -> None:
    inputs = (RemoteTensor("a", "FP32", (4,)), RemoteTensor("b", "INT32", (2, 2)))

    tensors = make_requests(model(*inputs), (3,), Pictures(), 0)[3][0]

    assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in tensors] == [
        ("a", "FP32", (3, 4)),
        ("b", "INT32", (3, 2, 2)),
    ]


def test_without_a_batch_dimension_the_shape_is_the_tensors_own() -> None:
    assert first(model(PIXELS, max_batch=0), 1).shape == (4, 5, 3)


def test_messages_are_what_the_protocol_expects() -> None:
    requests = make_requests(model(PIXELS), (2,), Pictures(), 0)

    message = pb.ModelInferRequest.FromString(wire_messages("net", requests)[2][0])

    assert message.model_name == "net"
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in message.inputs] == [
        ("image", "UINT8", [2, 4, 5, 3])
    ]
    assert list(message.raw_input_contents) == [requests[2][0][0].raw]
    assert not message.inputs[0].HasField("contents")


@pytest.fixture
def photos(tmp_path: Path) -> tuple[Path, ...]:
    paths = (tmp_path / "red.png", tmp_path / "blue.jpg")
    Image.new("RGB", (40, 30), (255, 0, 0)).save(paths[0])
    Image.new("RGB", (30, 60), (0, 0, 255)).save(paths[1])
    return paths


def test_photographs_are_fitted_to_pixels(photos: tuple[Path, ...]) -> None:
    values = array(first(model(PIXELS), 3, Pictures("files", photos)), "u1")

    assert values[0].reshape(-1, 3).tolist() == [[255, 0, 0]] * 20
    assert np.abs(values[1].astype(int) - [0, 0, 255]).max() <= 3  # JPEG
    assert (values[2] == values[0]).all()


def test_photographs_are_fitted_to_planes_of_floats(photos: tuple[Path, ...]) -> None:
    tensor = RemoteTensor("image", "FP32", (3, 4, 5))

    values = array(first(model(tensor), 1, Pictures("files", photos)), "<f4")

    assert values[0, 0].tolist() == pytest.approx(np.ones((4, 5)))
    assert not values[0, 1:].any()


def test_photographs_may_be_sent_as_they_are(photos: tuple[Path, ...]) -> None:
    tensor = first(model(PIXELS), 2, Pictures("files", photos, encoded=True))

    lengths = [path.stat().st_size for path in photos]
    assert (tensor.datatype, tensor.shape, len(tensor.raw)) == ("BYTES", (2,), sum(lengths) + 8)
    assert int.from_bytes(tensor.raw[:4], "little") == lengths[0]


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.png"):
        first(model(PIXELS), 1, Pictures("files", (tmp_path / "absent.png",)))


def test_a_model_with_several_inputs_takes_no_photographs(photos: tuple[Path, ...]) -> None:
    with pytest.raises(ServerRefused, match="several inputs"):
        first(model(PIXELS, PIXELS), 1, Pictures("files", photos))


def test_bytes_cannot_be_random() -> None:
    with pytest.raises(ConfigError, match="BYTES; give files with --input"):
        first(model(RemoteTensor("text", "BYTES", (1,))), 1)


def test_a_varying_dimension_cannot_be_filled() -> None:
    with pytest.raises(ConfigError, match=r"shape \[-1, 4\] an item"):
        first(model(RemoteTensor("x", "FP32", (-1, 4))), 1)


def test_requests_beyond_the_budget_are_refused_before_they_are_made() -> None:
    with pytest.raises(ConfigError, match=r"need 1024 MiB, 256 MiB are allowed; lower --batch"):
        make_requests(model(RemoteTensor("x", "FP32", (1 << 20,))), (256,), Pictures(), 0)


def test_large_requests_have_fewer_variants() -> None:
    requests = make_requests(model(RemoteTensor("x", "UINT8", (32 << 20,))), (4,), Pictures("zeros"), 0)

    assert len(requests[4]) == 2


def test_shared_requests_point_at_their_tensors() -> None:
    requests = make_requests(model(PIXELS, RemoteTensor("b", "FP32", (3,))), (1, 2), Pictures(), 0)
    shared = SharedRequests("region", requests)
    try:
        messages = shared.messages("net")
        seen = SharedMemory(shared.key.lstrip("/"))
        for images, variants in requests.items():
            for tensors, raw in zip(variants, messages[images], strict=True):
                message = pb.ModelInferRequest.FromString(raw)
                assert not message.raw_input_contents
                assert [content(seen, tensor) for tensor in message.inputs] == [each.raw for each in tensors]
        assert shared.byte_size <= seen.size
        seen.close()
    finally:
        shared.close()


def content(memory: SharedMemory, tensor: pb.ModelInferRequest.InferInputTensor) -> bytes:
    start = tensor.parameters["shared_memory_offset"].int64_param
    size = tensor.parameters["shared_memory_byte_size"].int64_param
    assert tensor.parameters["shared_memory_region"].string_param == "region"
    return bytes(memory.buf[start : start + size])


def test_closing_removes_the_shared_memory() -> None:
    shared = SharedRequests("region", make_requests(model(PIXELS), (1,), Pictures(), 0))
    name = shared.key.lstrip("/")

    shared.close()

    with pytest.raises(FileNotFoundError):
        SharedMemory(name)


def test_the_largest_message_is_known() -> None:
    assert Payloads({1: (b"123",), 2: (b"12345", b"1")}).largest_bytes == 5
