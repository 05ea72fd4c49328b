from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from bench.serving.messages import infer_request, shared_memory_request
from bench.serving.networks import CHW, HWC, INPUT, OUTPUT, images, write_repository
from protos import grpc_service_pb2 as wire


@pytest.mark.parametrize(("kind", "shape"), [("negligible", HWC), ("small", CHW)])
def test_both_datatypes_give_the_same_scores_for_the_same_pixels(
    tmp_path: Path, kind: str, shape: tuple[int, int, int]
) -> None:
    repository = write_repository(tmp_path)
    pixels = images("UINT8", 3, shape)
    scores = {}
    for datatype, tensor in (("uint8", pixels), ("fp32", pixels.astype(np.float32))):
        path = repository / f"{kind}-{datatype}" / "1" / "model.onnx"
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (scores[datatype],) = session.run([OUTPUT], {INPUT: tensor})
    assert scores["uint8"].shape == (3, 10)
    assert np.ptp(scores["uint8"]) > 0
    np.testing.assert_array_equal(scores["uint8"], scores["fp32"])


def test_a_message_is_what_the_protocol_says() -> None:
    tensor = images("FP32", 2)
    request = wire.ModelInferRequest.FromString(infer_request("model", INPUT, tensor))
    (described,) = request.inputs
    assert (request.model_name, described.name, described.datatype) == ("model", INPUT, "FP32")
    assert list(described.shape) == [2, 224, 224, 3]
    assert request.raw_input_contents[0] == tensor.tobytes()


def test_a_shared_memory_message_carries_no_pixels() -> None:
    tensor = images("UINT8", 1)
    request = wire.ModelInferRequest.FromString(shared_memory_request("model", INPUT, tensor, "region"))
    parameters = request.inputs[0].parameters
    assert not request.raw_input_contents
    assert parameters["shared_memory_region"].string_param == "region"
    assert parameters["shared_memory_byte_size"].int64_param == tensor.nbytes
