from __future__ import annotations

import argparse
import asyncio
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from server.client.endpoint import check_target
from server.commands import infer
from server.errors import ConfigError

Infer = Callable[..., Awaitable[int]]
COLOURS = {"red": (250, 10, 20), "green": (10, 250, 20), "blue": (10, 20, 250)}


def arguments_of(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    infer.add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture
def photos(tmp_path: Path) -> dict[str, str]:
    """One PNG of each colour, 40 by 60."""
    paths = {}
    for name, colour in COLOURS.items():
        path = tmp_path / f"{name}.png"
        Image.new("RGB", (60, 40), colour).save(path)
        paths[name] = str(path)
    return paths


def mean_model(tiny: ModuleType, datatype: int, shape: tuple[int, ...], axes: list[int]) -> object:
    """`image` [n, *shape] to `scores` FP32 [n,3]: the mean over `axes`."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["scores"], keepdims=0),
    ]
    constants = [helper.make_tensor("axes", TensorProto.INT64, [2], axes)]
    image = tiny.tensor("image", datatype, "batch", *shape)
    return tiny.model(nodes, [image], [tiny.tensor("scores", TensorProto.FLOAT, "batch", 3)], constants)


@pytest.fixture
async def infer_on(tiny: ModuleType, root: Path) -> AsyncIterator[Infer]:
    """Runs the command against a server with the models of the tiny repository, and some more."""
    tiny.put_model(root, "plain", 1, mean_model(tiny, TensorProto.UINT8, (4, 4, 3), [1, 2]))
    tiny.put_model(root, "planes", 1, mean_model(tiny, TensorProto.FLOAT, (3, 4, 4), [2, 3]))
    models = ("colour", "pair", "whole", "plain", "planes")
    async with tiny.start_server(root, models=models) as served:

        async def run(*words: str) -> int:
            return await asyncio.to_thread(infer.run, arguments_of(*words, "--url", served.address))

        yield run


def tops(printed: str) -> list[str]:
    """The first class below each file's name."""
    return [re.sub(r"^ +\w+ +[\d.-]+ +", "", line) for line in re.findall(r"\.png\n(.*)", printed)]


async def test_labels_and_scores_are_printed(
    infer_on: Infer, photos: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert await infer_on(photos["green"], "--model", "colour", "--top", "2") == 0

    first, best, second, footer = capsys.readouterr().out.splitlines()
    assert first == photos["green"]
    assert best.split() == ["score", "250.0000", "green", "(1)"]
    assert second.split() == ["score", "20.0000", "blue", "(2)"]
    assert re.fullmatch(r"1 image, \d+\.\d ms, colour version 2 on onnxruntime_onnx", footer)


async def test_several_images_travel_in_one_request(
    infer_on: Infer, photos: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert await infer_on(*photos.values(), "--model", "colour") == 0

    printed = capsys.readouterr().out
    assert tops(printed) == ["red (0)", "green (1)", "blue (2)"]
    assert "3 images in one request" in printed


async def test_more_images_than_the_model_takes_go_in_several_requests(
    infer_on: Infer, photos: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert await infer_on(*[photos["blue"]] * 17, "--model", "colour", "--top", "1") == 0

    printed = capsys.readouterr().out
    assert tops(printed) == ["blue (2)"] * 17
    assert "16 images in one request" in printed
    assert "1 image, " in printed


async def test_a_model_that_decodes_nothing_gets_pixels(
    infer_on: Infer, photos: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert await infer_on(*photos.values(), "--model", "plain", "--top", "1") == 0

    assert tops(capsys.readouterr().out) == ["class 0", "class 1", "class 2"]


async def test_a_floating_point_model_gets_normalised_planes(
    infer_on: Infer, photos: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", "planes", "--scale", "0.1", "--mean", "1,2,3", "--std", "2", "--top", "1")

    assert await infer_on(photos["green"], photos["blue"], *words) == 0

    printed = capsys.readouterr().out
    assert tops(printed) == ["class 1", "class 2"]
    assert re.findall(r"score +([\d.]+)", printed) == ["11.5000", "11.0000"]


async def test_softmax_is_taken_over_all_classes(
    infer_on: Infer, photos: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", "planes", "--scale", "0.01", "--softmax", "--top", "1")

    assert await infer_on(photos["red"], *words) == 0

    scores = np.array([2.5, 0.1, 0.2])
    expected = np.exp(scores[0]) / np.exp(scores).sum()
    assert f"probability   {expected:.4f}  class 0" in capsys.readouterr().out


async def test_a_floating_point_model_needs_to_be_told_how(infer_on: Infer, photos: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="give --scale, --mean and --std"):
        await infer_on(photos["red"], "--model", "planes")


async def test_the_model_must_be_named_among_several(infer_on: Infer, photos: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="choose one with --model: colour, pair, plain, planes, whole"):
        await infer_on(photos["red"])


async def test_the_only_model_need_not_be_named(
    tiny: ModuleType, root: Path, photos: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    async with tiny.start_server(root, models=("colour",)) as served:
        arguments = arguments_of(photos["red"], "--url", served.address)
        assert await asyncio.to_thread(infer.run, arguments) == 0

    assert tops(capsys.readouterr().out) == ["red (0)"]


async def test_an_unknown_model_is_the_servers_answer(
    infer_on: Infer, photos: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert await infer_on(photos["red"], "--model", "absent") == 1

    assert "NOT_FOUND: Request for unknown model: 'absent'" in capsys.readouterr().err


async def test_a_model_with_several_inputs_is_no_classifier(
    infer_on: Infer, photos: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert await infer_on(photos["red"], "--model", "pair") == 1

    assert "several inputs (a, b)" in capsys.readouterr().err


async def test_an_input_that_is_no_picture_is_refused(infer_on: Infer, photos: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"shape \[2, 3\] an item"):
        await infer_on(photos["red"], "--model", "whole")


async def test_an_unknown_output_lists_the_known(infer_on: Infer, photos: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="no output 'logits'; choose one of scores"):
        await infer_on(photos["red"], "--model", "colour", "--output", "logits")


@pytest.fixture
def damaged(photos: dict[str, str], tmp_path: Path) -> Path:
    path = tmp_path / "damaged.png"
    path.write_bytes(Path(photos["red"]).read_bytes()[:60])
    return path


async def test_a_damaged_file_is_named(infer_on: Infer, photos: dict[str, str], damaged: Path) -> None:
    with pytest.raises(ConfigError, match=r"damaged\.png: .*(damaged|cannot|cut short)"):
        await infer_on(photos["red"], str(damaged), "--model", "colour")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"IMAGE absent\.jpg cannot be read: No such file"):
        infer.run(arguments_of("absent.jpg"))


def test_a_file_that_is_no_picture_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("hello")

    with pytest.raises(ConfigError, match="neither a JPEG nor a PNG"):
        infer.run(arguments_of(str(text)))


def test_a_server_that_is_down_says_what_to_do(
    photos: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        url = f"127.0.0.1:{unused.getsockname()[1]}"

        assert infer.run(arguments_of(photos["red"], "--url", url)) == 1

    printed = capsys.readouterr().err
    assert f"no server answers at {url}" in printed
    assert "boulton serve --repository" in printed


@pytest.mark.parametrize(
    "url", ["", "localhost", "localhost:", "localhost:x", "localhost:0", "h:70000", "a/b:1"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        check_target(url)


@pytest.mark.parametrize(
    "url", ["localhost:8001", "grpc://localhost:8001", "http://localhost:8001/", "[::1]:8001"]
)
def test_an_address_may_have_a_scheme(url: str) -> None:
    assert check_target(url) in ("localhost:8001", "[::1]:8001")


def test_a_token_file_may_be_the_servers(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("# tokens\n\nclient abcdefghijklmnop\noperator qrstuvwxyzabcdef\n")

    endpoint = infer.endpoint_from(arguments_of("x.png", "--token-file", str(path)))

    assert endpoint.metadata == (("authorization", "Bearer abcdefghijklmnop"),)


def test_an_empty_token_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("# nothing\n")

    with pytest.raises(ConfigError, match="holds no token"):
        infer.endpoint_from(arguments_of("x.png", "--token-file", str(path)))


def test_half_an_identity_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--tls-cert and --tls-key go together"):
        infer.endpoint_from(arguments_of("x.png", "--tls-cert", str(tmp_path / "own.pem")))
