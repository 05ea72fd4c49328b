"""Builds are real: TensorRT-RTX parses and builds here, for GPUs that are not here."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from onnx import TensorProto

from server.engines.tensorrt.builder import (
    BuildOptions,
    BuildRequest,
    _network_flags,
    _use_kernel_times,
    build_plan,
)
from server.engines.tensorrt.toolkit import Toolkit
from server.errors import EngineError

WriteModel = Callable[..., Path]
CAPABILITIES = ("SM80", "SM86", "SM89", "SM120")


def request(path: Path, *batches: int, capability: str = "SM80", **options: object) -> BuildRequest:
    return BuildRequest(path, batches, (capability,), BuildOptions(**options))


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_small_cnn_builds_for_each_architecture(
    rtx: Toolkit, write_model: WriteModel, capability: str
) -> None:
    built = build_plan(rtx, request(write_model(), 1, 4, 16, capability=capability))
    assert b"ftrt" in built.plan[:64] or b"vtrt" in built.plan[:64]
    assert len(built.plan) > 10_000


def test_plans_for_different_architectures_differ(rtx: Toolkit, write_model: WriteModel) -> None:
    path = write_model()
    plans = {build_plan(rtx, request(path, 1, capability=capability)).plan for capability in CAPABILITIES}
    plans.add(build_plan(rtx, BuildRequest(path, (1,), CAPABILITIES)).plan)
    assert len(plans) == len(CAPABILITIES) + 1


@pytest.mark.parametrize("capabilities", [("SM86",), CAPABILITIES])
def test_efficientnet_builds_for_one_architecture_and_for_several_at_once(
    rtx: Toolkit, efficientnet: Path, capabilities: tuple[str, ...]
) -> None:
    built = build_plan(rtx, BuildRequest(efficientnet, (1, 8, 32), capabilities))
    weights = sum(t.ByteSize() for t in onnx.load(efficientnet).graph.initializer)
    assert len(built.plan) > weights / 2


def test_a_network_without_a_batch_dimension_builds_without_profiles(
    rtx: Toolkit, write_model: WriteModel
) -> None:
    assert build_plan(rtx, request(write_model(batch=2))).plan


@pytest.mark.parametrize("datatype", ["BOOL", "UINT8", "INT8", "INT32", "INT64", "FLOAT16", "FLOAT"])
def test_every_datatype_that_tensorrt_has_is_built(
    rtx: Toolkit, write_node: Callable[..., Path], datatype: str
) -> None:
    path = write_node("Identity", datatype=getattr(TensorProto, datatype))
    assert build_plan(rtx, request(path, 2)).plan


def test_networks_are_strongly_typed_where_that_is_a_choice(rtx: Toolkit) -> None:
    flags = rtx.trt.NetworkDefinitionCreationFlag
    assert _network_flags(rtx.trt) == 1 << int(flags.STRONGLY_TYPED)
    assert _network_flags(SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace())) == 0
    assert _network_flags(SimpleNamespace()) == 0


def test_progress_rises_to_the_end(rtx: Toolkit, write_model: WriteModel) -> None:
    seen: list[tuple[float, str]] = []

    def on_progress(share: float, phase: str) -> bool:
        seen.append((share, phase))
        return True

    build_plan(rtx, request(write_model(), 1, 4), on_progress=on_progress)
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= 1
    assert shares[-1] > 0.8
    assert {"Building engine", "Optimizing graph"} <= {phase for _, phase in seen}


def test_a_build_can_be_ended(rtx: Toolkit, write_model: WriteModel) -> None:
    with pytest.raises(EngineError, match="Build canceled by user"):
        build_plan(rtx, request(write_model(), 1), on_progress=lambda _share, _phase: False)


def test_kernel_times_are_kept_where_the_toolkit_times_kernels(rtx: Toolkit, write_model: WriteModel) -> None:
    """TensorRT-RTX has these calls too, though it warns that they do nothing."""
    timing = replace(rtx, timing_cache=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        first = build_plan(timing, request(write_model(), 1))
        assert first.timing_cache
        for cache in (first.timing_cache, b"damaged"):
            assert build_plan(timing, request(write_model(), 1), cache).plan
    assert build_plan(rtx, request(write_model(), 1)).timing_cache == b""


class TimingConfig:
    """Takes kernel times as TensorRT does: not from damaged bytes, other GPUs' only where that is allowed."""

    def __init__(self) -> None:
        self.times: list[bytes] = []

    def create_timing_cache(self, times: bytes) -> bytes | None:
        return None if times == b"damaged" else times

    def set_timing_cache(self, times: bytes, ignore_mismatch: bool) -> bool:
        accepted = ignore_mismatch or times != b"another GPU's"
        if accepted:
            self.times.append(times)
        return accepted


@pytest.mark.parametrize(
    ("given", "used"), [(b"own", b"own"), (b"", b""), (b"damaged", b""), (b"another GPU's", b"")]
)
def test_only_kernel_times_of_the_same_gpu_are_believed(given: bytes, used: bytes) -> None:
    config = TimingConfig()
    _use_kernel_times(config, given)
    assert config.times == [used]


@pytest.mark.parametrize("content", [b"", b"no onnx at all " * 100])
def test_garbage_is_no_onnx(rtx: Toolkit, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=r"model.onnx.*ONNX"):
        build_plan(rtx, request(path, 1))


def test_a_truncated_onnx_file_is_refused(rtx: Toolkit, write_model: WriteModel) -> None:
    path = write_model()
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(EngineError, match=r"model.onnx: not a readable ONNX file"):
        build_plan(rtx, request(path, 1))


def test_a_missing_file_is_named(rtx: Toolkit, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"absent.onnx"):
        build_plan(rtx, request(tmp_path / "absent.onnx", 1))


def test_an_operator_that_is_not_supported_is_named(rtx: Toolkit, write_node: Callable[..., Path]) -> None:
    for operator, attributes in (("Frobnicate", {}), ("Unique", {})):
        path = write_node(operator, **attributes)
        expected = rf"operator {operator} \(node 'my_{operator}'\) is not supported by TensorRT; replace it"
        with pytest.raises(EngineError, match=expected):
            build_plan(rtx, request(path, 1))


def test_shapes_that_contradict_each_other_are_explained(
    rtx: Toolkit, write_node: Callable[..., Path]
) -> None:
    path = write_node("Conv", (5, 8, 8), (4, 6, 6), weights=(4, 3, 3, 3))
    expected = r"operator Conv \(node 'my_Conv'\): Kernel weight dimension failed to broadcast to input; "
    with pytest.raises(EngineError, match=expected):
        build_plan(rtx, request(path, 1))


def test_a_datatype_that_tensorrt_would_change_is_refused(
    rtx: Toolkit, write_node: Callable[..., Path]
) -> None:
    """TensorRT takes FP64 for FP32 without a word: what clients send would be read as something else."""
    path = write_node("Identity", datatype=TensorProto.DOUBLE)
    with pytest.raises(EngineError, match="input 'x' is FP64, of which TensorRT makes FLOAT; allowed are"):
        build_plan(rtx, request(path, 1))


def test_a_datatype_that_tensorrt_lacks_is_refused(rtx: Toolkit, write_node: Callable[..., Path]) -> None:
    path = write_node("Identity", datatype=TensorProto.UINT16)
    with pytest.raises(EngineError, match="Failed to convert"):
        build_plan(rtx, request(path, 1))


@pytest.mark.parametrize("batches", [(), (0, 4), (2, 2), (1, 4_096_000_000), tuple(range(1, 40))])
def test_bad_batches_are_refused(rtx: Toolkit, write_model: WriteModel, batches: tuple[int, ...]) -> None:
    with pytest.raises(EngineError, match=r"batches are .*; 1 to 32 different sizes of 1 to 65536"):
        build_plan(rtx, request(write_model(), *batches))


def test_batches_for_a_fixed_batch_are_refused(rtx: Toolkit, write_model: WriteModel) -> None:
    with pytest.raises(EngineError, match="batches 1, 4 were asked for, but the graph has a fixed first"):
        build_plan(rtx, request(write_model(batch=2), 1, 4))


def test_another_architecture_is_refused_with_those_that_are_known(
    rtx: Toolkit, write_model: WriteModel
) -> None:
    with pytest.raises(EngineError, match=r"cannot build for SM90; it builds for SM75, SM80, SM86"):
        build_plan(rtx, request(write_model(), 1, capability="SM90"))


def test_too_little_workspace_says_so(rtx: Toolkit, write_model: WriteModel) -> None:
    with pytest.raises(EngineError, match=r"workspace.*0 MiB of workspace are allowed: allow more"):
        build_plan(rtx, request(write_model(), 1, workspace_bytes=1))


def test_the_next_build_knows_nothing_of_the_last_ones_errors(rtx: Toolkit, write_model: WriteModel) -> None:
    path = write_model()
    with pytest.raises(EngineError, match="workspace"):
        build_plan(rtx, request(path, 1, workspace_bytes=1))
    with pytest.raises(EngineError) as caught:
        build_plan(rtx, request(path, 1), on_progress=lambda _share, _phase: False)
    assert "workspace" not in str(caught.value)


def test_options_change_the_plan(rtx: Toolkit, write_model: WriteModel) -> None:
    path = write_model()
    assert build_plan(rtx, request(path, 1, tf32=False)).plan
    detailed = build_plan(rtx, request(path, 1, detailed=True)).plan
    assert b"node_of_features" in detailed or len(detailed) != len(build_plan(rtx, request(path, 1)).plan)
