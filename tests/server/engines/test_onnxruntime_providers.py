"""Providers of ONNX Runtime. None of the GPU's can run here: their options and refusals are tested, on real
sessions where ONNX Runtime on the CPU shows the same behaviour."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnxruntime
import pytest

from server.engines.engine import TensorSpec
from server.engines.onnxruntime import load_onnxruntime_engine
from server.engines.onnxruntime_providers import (
    CPU,
    PLACEMENT_KEY,
    Providers,
    cuda,
    refuse_fallback,
    tensorrt,
)
from server.errors import EngineError

PATH = Path("cnn.onnx")
CUDA = cuda(1, few_shapes=False)
IMAGE = (TensorSpec("image", "UINT8", (6, 6, 3)), TensorSpec("scale", "FP32", ()))


@dataclass
class Node:
    op_type: str
    name: str = "n"


@dataclass
class Placed:
    ep_name: str
    nodes: Sequence[Node]

    def get_nodes(self) -> Sequence[Node]:
        return self.nodes


def on_cuda(*kinds: str) -> Placed:
    return Placed("CUDAExecutionProvider", [Node(kind) for kind in kinds])


def on_cpu(*kinds: str) -> Placed:
    return Placed("CPUExecutionProvider", [Node(kind, f"{kind.lower()}_{i}") for i, kind in enumerate(kinds)])


ACTIVE = ["CUDAExecutionProvider", "CPUExecutionProvider"]


class TestOptions:
    def test_the_cpu_needs_none(self) -> None:
        assert CPU.chain == (("CPUExecutionProvider", {}),)
        assert not CPU.on_gpu
        assert CPU.any_thread

    def test_cuda_names_its_gpu_and_ends_with_the_cpu_for_shapes(self) -> None:
        assert [name for name, _ in CUDA.chain] == ACTIVE
        assert CUDA.chain[0][1]["device_id"] == "1"
        assert CUDA.on_gpu
        assert not CUDA.any_thread

    @pytest.mark.parametrize(("few_shapes", "search"), [(True, "EXHAUSTIVE"), (False, "HEURISTIC")])
    def test_cuda_searches_long_only_where_sizes_are_few(self, few_shapes: bool, search: str) -> None:
        assert cuda(0, few_shapes=few_shapes).chain[0][1]["cudnn_conv_algo_search"] == search

    def test_tensorrt_has_one_profile_over_all_batches(self) -> None:
        options = dict(tensorrt(2, IMAGE, 32, None).chain)["TensorrtExecutionProvider"]
        assert options == {
            "device_id": "2",
            "trt_profile_min_shapes": "image:1x6x6x3,scale:1",
            "trt_profile_opt_shapes": "image:32x6x6x3,scale:32",
            "trt_profile_max_shapes": "image:32x6x6x3,scale:32",
        }

    def test_tensorrt_without_a_batch_dimension_needs_no_profile(self) -> None:
        options = dict(tensorrt(0, IMAGE, 0, None).chain)["TensorrtExecutionProvider"]
        assert options == {"device_id": "0"}

    def test_tensorrt_keeps_engines_and_timings_where_it_may(self, tmp_path: Path) -> None:
        options = dict(tensorrt(0, IMAGE, 4, tmp_path).chain)["TensorrtExecutionProvider"]
        assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "True"
        assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"] == str(tmp_path)

    def test_tensorrt_has_cuda_behind_it_on_the_same_gpu(self) -> None:
        chain = tensorrt(2, IMAGE, 4, None).chain
        assert [name for name, _ in chain] == ["TensorrtExecutionProvider", *ACTIVE]
        assert chain[1][1]["device_id"] == "2"


class TestRefusal:
    def test_all_on_the_gpu_is_accepted(self) -> None:
        refuse_fallback(PATH, CUDA, ACTIVE, [on_cuda("Conv", "Relu", "Gemm")])

    def test_shapes_may_be_computed_on_the_cpu(self) -> None:
        refuse_fallback(PATH, CUDA, ACTIVE, [on_cuda("Conv"), on_cpu("Shape", "Gather")])

    def test_a_provider_that_did_not_start(self) -> None:
        with pytest.raises(EngineError, match=r"could not start CUDAExecutionProvider .* pip uninstall onnx"):
            refuse_fallback(PATH, CUDA, ["CPUExecutionProvider"], [on_cpu("Conv")])

    def test_a_convolution_left_behind_is_named(self) -> None:
        with pytest.raises(EngineError, match=r"QLinearConv 'qlinearconv_1' \(CPUExecutionProvider\)"):
            refuse_fallback(PATH, CUDA, ACTIVE, [on_cuda("Conv"), on_cpu("Shape", "QLinearConv")])

    def test_of_many_a_few_are_named(self) -> None:
        with pytest.raises(EngineError, match=r"gemm_2' \(CPUExecutionProvider\) and 2 more would run"):
            refuse_fallback(PATH, CUDA, ACTIVE, [on_cuda("Conv"), on_cpu(*["Gemm"] * 5)])

    @pytest.mark.parametrize("placements", [[], [on_cpu("Relu", "Add")]])
    def test_a_gpu_that_does_nothing(self, placements: list[Placed]) -> None:
        with pytest.raises(EngineError, match="all of it would run elsewhere"):
            refuse_fallback(PATH, CUDA, ACTIVE, placements)

    def test_cuda_doing_the_work_of_tensorrt(self) -> None:
        active = ["TensorrtExecutionProvider", *ACTIVE]
        with pytest.raises(EngineError, match=r"Conv 'n' \(CUDAExecutionProvider\)"):
            refuse_fallback(PATH, tensorrt(0, IMAGE, 4, None), active, [on_cuda("Conv")])


class TestOnARealSession:
    def test_a_build_without_the_provider_is_refused(self, write_model: Callable[..., Path]) -> None:
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            pytest.skip("this ONNX Runtime has the CUDA provider")
        with pytest.raises(EngineError, match=r"has no CUDAExecutionProvider, only .*CPU.*pip uninstall"):
            load_onnxruntime_engine(write_model(), providers=CUDA)

    @pytest.mark.parametrize(
        "content", ["open(__file__ + '.seen', 'x').close()", "raise OSError('libnvinfer')"]
    )
    def test_what_a_provider_loads_first_is_imported_where_it_can_be(
        self, write_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
    ) -> None:
        module = tmp_path / "loads_libraries_of_a_provider.py"
        module.write_text(content)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(Providers, "check_offered", lambda *_: None)
        providers = replace(CUDA, loads_first=module.stem)
        with pytest.warns(UserWarning, match="CUDA"), pytest.raises(EngineError, match="could not start"):
            load_onnxruntime_engine(write_model(), providers=providers)
        assert module.with_name(f"{module.name}.seen").exists() == content.startswith("open")

    def test_tensorrt_loads_the_libraries_of_its_package(self) -> None:
        assert tensorrt(0, IMAGE, 4, None).loads_first == "tensorrt"
        assert not CUDA.loads_first

    def test_a_session_that_went_on_with_the_cpu_is_refused(
        self, write_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            pytest.skip("this ONNX Runtime has the CUDA provider")
        monkeypatch.setattr(Providers, "check_offered", lambda *_: None)  # as if a library were missing
        with (
            pytest.warns(UserWarning, match="CUDAExecutionProvider"),
            pytest.raises(EngineError, match="could not start CUDAExecutionProvider"),
        ):
            load_onnxruntime_engine(write_model(), providers=CUDA)

    def test_placements_are_read_from_a_session(self, write_model: Callable[..., Path]) -> None:
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry(PLACEMENT_KEY, "1")
        session = onnxruntime.InferenceSession(write_model(), options, providers=["CPUExecutionProvider"])
        placements = session.get_provider_graph_assignment_info()
        refuse_fallback(PATH, CPU, session.get_providers(), placements)
        with pytest.raises(EngineError, match=r"Conv '.*' \(CPUExecutionProvider\)"):
            refuse_fallback(PATH, CUDA, ACTIVE, [on_cuda("Relu"), *placements])
