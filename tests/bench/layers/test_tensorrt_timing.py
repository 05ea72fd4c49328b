import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.layers.tensorrt_layers import PlanLayer, nodes_in_name, read_plan_layers
from server.engines.registry import engine_kind
from server.errors import EngineError

KNOWN = {"stem", "stem_relu", "depth", "node_a.b", "/features/0"}


def test_the_plans_own_list_of_nodes_is_taken() -> None:
    layer = {
        "Name": "__myl_Conv_myl0_1",
        "LayerType": "kgen",
        "Metadata": "\x1e".join(f"[ONNX Layer: {name}]" for name in ("stem", "stem_relu", "stem", "foreign")),
    }

    assert read_plan_layers(json.dumps({"Layers": [layer]}), KNOWN) == {
        "__myl_Conv_myl0_1": PlanLayer("kgen", ("stem", "stem_relu"))
    }


def test_a_plan_without_details_has_names_only() -> None:
    found = read_plan_layers(json.dumps({"Layers": ["stem + stem_relu", "reformat"]}), KNOWN)

    assert found["stem + stem_relu"].nodes == ("stem", "stem_relu")
    assert found["reformat"].nodes == ()


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("stem", ("stem",)),
        ("stem + PWN(stem_relu)", ("stem", "stem_relu")),
        ("PWN(PWN(/features/0), node_a.b)", ("/features/0", "node_a.b")),
        ("Reformatting CopyNode for Input Tensor 0 to stem", ()),
        ("{ForeignNode[stem...depth]}", ()),
        ("something else", ()),
    ],
)
def test_names_made_of_names(name: str, nodes: tuple[str, ...]) -> None:
    assert nodes_in_name(name, KNOWN) == nodes


@pytest.fixture
def gpu(network: Path, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401 - a bundle of fakes
    """TensorRT-RTX that builds really and runs on a simulated GPU, with a profiler that tells set times."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed: boulton[rtx]")
    import fake_gpu

    from server.engines.tensorrt.toolkit import TENSORRT_RTX, load_toolkit

    toolkit, cuda = load_toolkit(TENSORRT_RTX), fake_gpu.FakeCuda()
    module = fake_gpu.FakeRuntimeModule(toolkit.trt, cuda, network, (2,))
    told = {"stem + stem_relu": 2.0, "reformat": 0.5, "range": 4.0}
    execute = fake_gpu.FakeContext.execute_async_v3

    def execute_and_tell(context: Any, handle: int) -> bool:  # noqa: ANN401
        profiler = getattr(context, "profiler", None)
        for name, ms in told.items() if profiler else ():
            profiler.report_layer_time(name, ms)
        return execute(context, handle)

    information = {
        "Layers": [
            {"Name": "stem + stem_relu", "LayerType": "CaskConvolution"},
            {"Name": "range", "LayerType": "Myelin", "Metadata": "[ONNX Layer: depth]"},
            {"Name": "reformat", "LayerType": "Reformat"},
        ]
    }
    inspector = SimpleNamespace(get_engine_information=lambda _format: json.dumps(information))
    monkeypatch.setattr(fake_gpu.FakeContext, "execute_async_v3", execute_and_tell)
    monkeypatch.setattr(
        fake_gpu.FakeUnpacked, "create_engine_inspector", lambda _self: inspector, raising=False
    )
    return SimpleNamespace(cuda=cuda, toolkit=replace(toolkit, trt=module), told=told)


def timed(network: Path, gpu: Any) -> Any:  # noqa: ANN401
    from bench.layers.tensorrt_timing import time_network

    return time_network(
        network,
        2,
        threads=1,
        repeats=4,
        toolkit="tensorrt-rtx",
        open_device=lambda _: gpu.cuda,
        find_toolkit=lambda _: gpu.toolkit,
    )


def test_the_gpu_that_is_named_is_opened(
    network: Path,
    gpu: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bench.layers import tensorrt_timing
    from bench.layers.engines import timer_of

    opened: list[int] = []

    def open_device(index: int) -> Any:  # noqa: ANN401
        opened.append(index)
        return gpu.cuda

    monkeypatch.setattr(type(engine_kind("tensorrt-rtx")), "available", lambda _self: None)
    timer = timer_of("tensorrt-rtx", 3)
    made = tensorrt_timing.time_network.__kwdefaults__
    monkeypatch.setitem(made, "open_device", open_device)
    monkeypatch.setitem(made, "find_toolkit", lambda _: gpu.toolkit)
    assert timer(network, 2, threads=1, repeats=4).layers
    assert opened == [3]


def test_what_the_profiler_tells_is_joined_with_the_plan(network: Path, gpu: Any) -> None:  # noqa: ANN401
    layers = timed(network, gpu).layers

    assert [(layer.name, layer.operator, layer.fused) for layer in layers] == [
        ("stem", "CaskConvolution", ("stem", "stem_relu")),
        ("reformat", "Reformat", ()),
        ("depth", "Myelin", ("depth",)),
    ]
    assert [layer.seconds for layer in layers] == pytest.approx([2e-3, 5e-4, 4e-3])


def test_nodes_that_no_layer_is_known_to_do_are_named(network: Path, gpu: Any) -> None:  # noqa: ANN401
    assert timed(network, gpu).unseen == (
        "subtract",
        "depth_relu",
        "point",
        "add",
        "add_relu",
        "pool",
        "flatten",
        "dense",
    )


def test_all_memory_is_given_back(network: Path, gpu: Any) -> None:  # noqa: ANN401
    timed(network, gpu)

    assert gpu.cuda.memory == {}


def test_a_profiler_that_tells_nothing_is_refused(network: Path, gpu: Any) -> None:  # noqa: ANN401
    gpu.told.clear()

    with pytest.raises(EngineError, match="told of no layer"):
        timed(network, gpu)
