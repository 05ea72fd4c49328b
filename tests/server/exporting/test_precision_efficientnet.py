"""EfficientNet-Lite0 with its real weights in FP16 and INT8: as true as promised, and taken by TensorRT."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest
from exported_networks import LITE0, Silence, lite0_float, once, shared_directory

from server.export import Exported, export_model
from server.exporting.builtin_models import BUILTIN_MODELS
from server.exporting.precision import pictures
from server.exporting.precision.kinds import Precision
from server.exporting.request import ExportRequest
from server.photographs import load_photographs


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    """FP16 and INT8 from the float32 file, with fewer views of the photographs than usual."""
    directory = shared_directory(tmp_path_factory)
    plain = lite0_float(directory)
    with pytest.MonkeyPatch.context() as views:
        views.setattr(pictures, "_CALIBRATING_VIEWS", 4)
        views.setattr(pictures, "_JUDGED_VIEWS", 8)
        return {
            precision: once(directory, f"lite0-{precision}", partial(lowered, plain, precision))
            for precision in (Precision.FP16, Precision.INT8)
        }


def lowered(plain: Exported, precision: Precision, root: Path) -> Exported:
    builtin = BUILTIN_MODELS[LITE0]
    request = ExportRequest(
        str(plain.path),
        root,
        name=f"lite0-{precision}",
        uint8=True,
        preprocessing=builtin.preprocessing,
        resize=builtin.resize,
        precision=precision,
    )
    return export_model(request, Silence())


def test_fp16_answers_like_float32_at_half_the_size(exported: dict[str, Exported]) -> None:
    rewritten = exported["fp16"].rewritten
    assert rewritten.fidelity.agreement > 0.98
    assert rewritten.fidelity.largest_difference < 0.02 * rewritten.fidelity.largest_value
    assert rewritten.file_bytes < 0.52 * rewritten.float32_bytes
    assert rewritten.kept == ()


def test_int8_agrees_by_keeping_a_few_early_convolutions(exported: dict[str, Exported]) -> None:
    rewritten = exported["int8"].rewritten
    assert rewritten.fidelity.agreement >= 0.95
    assert rewritten.file_bytes < 0.35 * rewritten.float32_bytes
    assert 1 <= len(rewritten.kept) <= 12
    assert {node.operator for node in rewritten.kept} == {"Conv"}


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_cat_is_still_a_cat(exported: dict[str, Exported], precision: str) -> None:
    (cat,) = load_photographs(("chelsea",))
    pixels = np.ascontiguousarray(cat.pixels[38:262, 100:324][np.newaxis])
    session = onnxruntime.InferenceSession(exported[precision].path, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"input": pixels})
    assert scores.dtype == np.float32
    assert 281 <= scores.argmax() <= 285  # ImageNet's five cats that live in houses


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_tensorrt_takes_it_as_a_strongly_typed_network(
    exported: dict[str, Exported], precision: str, trt: ModuleType
) -> None:
    types = layer_types(trt, exported[precision].path)
    assert {"fp16": trt.DataType.HALF, "int8": trt.DataType.INT8}[precision] in types


@pytest.fixture
def trt() -> ModuleType:
    return pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed: boulton[rtx]")


def layer_types(trt: ModuleType, path: Path) -> set[object]:
    """Parse a file, build it for SM86 to see that its types fit together, and return the types inside."""
    builder = trt.Builder(logger := trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(path)), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile, given = builder.create_optimization_profile(), network.get_input(0)
    shape = (4, *tuple(given.shape)[1:])
    profile.set_shape(given.name, shape, shape, shape)
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None
    assert {network.get_output(i).dtype for i in range(network.num_outputs)} == {trt.DataType.FLOAT}
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    return {layer.get_output(i).dtype for layer in layers for i in range(layer.num_outputs)}
