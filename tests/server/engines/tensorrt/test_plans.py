"""Plans out of the cache and into it, built by TensorRT-RTX itself."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from server.engines.tensorrt import plans
from server.engines.tensorrt.build_progress import OnProgress
from server.engines.tensorrt.builder import BuildOptions, BuildRequest, Built, build_plan
from server.engines.tensorrt.plan_cache import PlanCache
from server.engines.tensorrt.plan_key import GpuIdentity, PlanKey, onnx_digest, plan_key
from server.engines.tensorrt.plans import IfMissing, build_for, model_name, obtain_plan, portable_groups
from server.engines.tensorrt.toolkit import Toolkit
from server.errors import EngineError

A100 = GpuIdentity("NVIDIA A100-SXM4-80GB", "SM80", "580.10")
KEY = PlanKey("ab" * 32, "tensorrt 11.4", A100, (1, 8), BuildOptions())


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "plans")


@pytest.fixture
def request_(write_model: Callable[..., Path]) -> BuildRequest:
    return BuildRequest(write_model(), (1, 4), ("SM80",))


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, onnx_sha256="cd" * 32),
        replace(KEY, toolkit="tensorrt 11.5"),
        replace(KEY, gpu=replace(A100, name="NVIDIA A100-PCIE-40GB")),
        replace(KEY, gpu=replace(A100, capability="SM86")),
        replace(KEY, gpu=replace(A100, driver="590.1")),
        replace(KEY, gpu=A100.any_such),
        replace(KEY, batches=(1, 16)),
        replace(KEY, options=BuildOptions(tf32=False)),
        replace(KEY, options=BuildOptions(detailed=True)),
        replace(KEY, options=BuildOptions(workspace_bytes=1)),
    ],
)
def test_a_plan_for_anything_else_is_not_found(
    cache: PlanCache, other: PlanKey, caplog: pytest.LogCaptureFixture
) -> None:
    path = cache.keep_plan("net", KEY, b"plan")
    assert cache.plan("net", KEY) == b"plan"
    assert cache.plan("net", other) is None
    path.rename(cache.path("net", other))  # a foreign plan under the right name is recognised by its header
    assert cache.plan("net", other) is None
    assert "was made for" in caplog.text


def test_names_say_what_a_plan_is(cache: PlanCache) -> None:
    name = cache.path("net", KEY).name
    assert name.startswith("net-NVIDIA-A100-SXM4-80GB-SM80-")
    assert name.endswith(".plan")


def test_it_is_built_once(
    rtx: Toolkit, request_: BuildRequest, cache: PlanCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = obtain_plan(rtx, request_, A100, cache)
    forbidden = SimpleNamespace(__version__=rtx.version)  # nothing but the version may be asked for
    assert obtain_plan(replace(rtx, trt=forbidden), request_, A100, cache) == plan


@pytest.mark.parametrize("spoil", [lambda content: content[:-1000], lambda content: b"foreign" + content])
def test_a_damaged_plan_is_built_again_or_refused_as_told(
    rtx: Toolkit,
    request_: BuildRequest,
    cache: PlanCache,
    spoil: Callable[[bytes], bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    obtain_plan(rtx, request_, A100, cache)
    path = cache.path("model", plan_key(rtx, request_, A100))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(EngineError, match=r"holds no plan for .*A100.*`boulton build`"):
        obtain_plan(rtx, request_, A100, cache, if_missing=IfMissing.REFUSE)
    assert "it is not used" in caplog.text
    obtain_plan(rtx, request_, A100, cache)
    assert cache.plan("model", plan_key(rtx, request_, A100)) is not None


def test_what_was_built_for_any_gpu_of_the_kind_is_used(
    rtx: Toolkit, request_: BuildRequest, cache: PlanCache
) -> None:
    (path,) = build_for(rtx, request_, ("SM80",), cache, lambda _share, _phase: True)
    plan = obtain_plan(rtx, request_, A100, cache, if_missing=IfMissing.REFUSE)
    assert path.read_bytes().endswith(plan)
    with pytest.raises(EngineError, match="holds no plan"):
        obtain_plan(rtx, request_, replace(A100, capability="SM86"), cache, if_missing=IfMissing.REFUSE)


def test_one_build_serves_several_kinds_of_gpu_and_is_not_repeated(
    rtx: Toolkit, request_: BuildRequest, cache: PlanCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[tuple[str, ...]] = []

    def counted(toolkit: Toolkit, request: BuildRequest, *, on_progress: OnProgress) -> Built:
        built.append(request.capabilities)
        return build_plan(toolkit, request, on_progress=on_progress)

    monkeypatch.setattr(plans, "build_plan", counted)

    def build(*capabilities: str) -> tuple[Path, ...]:
        return build_for(rtx, request_, capabilities, cache, lambda _share, _phase: True)

    sm86, sm89 = build("SM86", "SM89")
    kept = sm86.read_bytes()
    assert build("SM89", "SM80", "SM86")[::2] == (sm89, sm86)
    assert build("SM80", "SM86", "SM89")[1:] == (sm86, sm89)
    assert built == [("SM86", "SM89"), ("SM80",)]
    assert sm86.read_bytes() == kept
    sm86.write_bytes(kept[:-1])
    build("SM86", "SM89")
    assert built[2:] == [("SM86",)]
    for capability in ("SM80", "SM86", "SM89"):
        obtain_plan(rtx, request_, replace(A100, capability=capability), cache, if_missing=IfMissing.REFUSE)


def test_turing_has_a_plan_of_its_own() -> None:
    assert portable_groups(("SM75", "SM80", "SM120")) == (("SM80", "SM120"), ("SM75",))
    assert portable_groups(("SM75",)) == (("SM75",),)
    assert portable_groups(("SM89", "SM86")) == (("SM89", "SM86"),)


def test_without_a_cache_it_is_built_or_refused(rtx: Toolkit, request_: BuildRequest) -> None:
    assert obtain_plan(rtx, request_, A100, None)
    with pytest.raises(EngineError, match="there is no plan cache for"):
        obtain_plan(rtx, request_, A100, None, if_missing=IfMissing.REFUSE)


def test_a_plan_that_cannot_be_kept_is_used_all_the_same(
    rtx: Toolkit, request_: BuildRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        assert obtain_plan(rtx, request_, A100, PlanCache(tmp_path / "file"))
    assert "the plan is not kept" in caplog.text


def test_kernel_times_are_kept_for_this_gpu_only(
    rtx: Toolkit, request_: BuildRequest, cache: PlanCache
) -> None:
    timing = replace(rtx, timing_cache=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TensorRT-RTX: they do nothing there
        obtain_plan(timing, request_, A100, cache)
    assert cache.kernel_times(timing, A100)
    assert cache.kernel_times(timing, replace(A100, driver="1")) == b""
    (kept,) = cache.directory.glob("kernels-*.cache")
    kept.write_bytes(kept.read_bytes()[:-1])
    assert cache.kernel_times(timing, A100) == b""


def test_the_digest_covers_the_weights_beside_the_file(
    tmp_path: Path, write_model: Callable[..., Path]
) -> None:
    path = tmp_path / "outside.onnx"
    model = onnx.load(write_model())
    (weights,) = model.graph.initializer
    weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights), weights.name))
    onnx.save(model, path, save_as_external_data=True, location="outside.data", size_threshold=0)
    before = onnx_digest(path)
    data = bytearray((tmp_path / "outside.data").read_bytes())
    data[5] ^= 1
    (tmp_path / "outside.data").write_bytes(data)
    assert onnx_digest(path) != before
    (tmp_path / "outside.data").unlink()
    with pytest.raises(EngineError, match=r"outside.data cannot be read"):
        onnx_digest(path)


def test_the_digest_follows_the_weights(write_model: Callable[..., Path]) -> None:
    digests = {onnx_digest(write_model(seed=seed)) for seed in (1, 2)}
    assert len(digests) == 2
    assert onnx_digest(write_model(seed=2)) in digests
    assert np.all([len(digest) == 64 for digest in digests])


@pytest.mark.parametrize(
    ("path", "name"), [("models/resnet50/3/model.onnx", "resnet50"), ("resnet50.onnx", "resnet50")]
)
def test_models_have_the_name_of_their_entry(path: str, name: str) -> None:
    assert model_name(BuildRequest(Path(path), ())) == name
