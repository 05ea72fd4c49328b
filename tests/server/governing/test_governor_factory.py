from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from optimizer.operating_point import OperatingGrid
from optimizer.revenue import Targets
from server.config import Settings
from server.engines.engine import TensorSpec
from server.errors import ConfigError
from server.governing import governor_factory
from server.governing.governor_factory import (
    choose_model,
    local_time_of_day,
    make_governing,
    read_targets,
)
from server.governing.loop import Governing

LONG_S = 60.0


@dataclass
class FakeSpec:
    name: str
    max_batch: int = 8
    outputs: tuple[TensorSpec, ...] = (TensorSpec("y", "FP16", (1000,)),)
    precision: str = "fp16"


@dataclass
class FakeScheduler:
    batch_limit: int = 8


@dataclass
class FakeEngine:
    served_batches: tuple[int, ...] = ()


@dataclass
class FakeModel:
    spec: FakeSpec
    engine: FakeEngine = field(default_factory=FakeEngine)
    scheduler: FakeScheduler = field(default_factory=FakeScheduler)


@dataclass
class FakeGpu:
    sm_clocks_mhz: tuple[int, ...] = ()
    uuid: str = "fake"
    simulated: bool = True


def models(*names: str, max_batch: int = 8) -> list[FakeModel]:
    return [FakeModel(FakeSpec(name, max_batch)) for name in names]


def settings(**given: object) -> Settings:
    return Settings(repository=Path("models"), **given)


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg"


def directly(function: object, /) -> object:
    return function()


def grid_of(model: FakeModel, clocks: tuple[int, ...] = (), **given: object) -> OperatingGrid:
    governing = make_governing(settings(**given), Targets(), [model], FakeGpu(clocks), directly)
    return governing.governor.grid


def test_the_grid_has_all_batch_limits_with_all_clocks() -> None:
    clocks = tuple(range(100, 1100, 5))
    grid = grid_of(*models("one", max_batch=4), clocks)
    assert grid.batch_limits == (1, 2, 3, 4)
    assert grid.sm_clocks_mhz == clocks
    assert grid_of(*models("one", max_batch=4)).sm_clocks_mhz == ()


def test_batch_limits_are_the_sizes_that_the_engine_runs() -> None:
    (model,) = models("one", max_batch=32)
    model.engine = FakeEngine((1, 8, 32))
    assert grid_of(model).batch_limits == (1, 8, 32)
    assert grid_of(model, batch_limit=20).batch_limits == (1, 8)


def test_the_only_model_is_governed_unless_another_is_named() -> None:
    one, two = models("one", "two")
    assert choose_model(None, [one]) is one
    assert choose_model(None, [one, two]) is None
    assert choose_model("two", [one, two]) is two
    with pytest.raises(ConfigError, match="loaded are one, two"):
        choose_model("three", [one, two])


def test_nothing_is_governed_where_there_is_nothing_to_choose() -> None:
    whole = models("whole", max_batch=0)
    assert make_governing(settings(), Targets(), whole, FakeGpu(), directly) is None
    assert make_governing(settings(no_govern=True), Targets(), models("net"), FakeGpu(), directly) is None
    assert make_governing(settings(batch_limit=1), Targets(), models("net"), FakeGpu(), directly) is None
    clocked = make_governing(settings(), Targets(), whole, FakeGpu((500, 1000)), directly)
    assert clocked is not None
    assert clocked.governor.grid.batch_limits == (1,)


class HangingGpu:
    """Its driver never says which clocks may be set."""

    uuid = "hangs"
    simulated = True

    @property
    def sm_clocks_mhz(self) -> tuple[int, ...]:
        threading.Event().wait(LONG_S)
        return ()


def test_a_driver_that_hangs_costs_the_clock_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(governor_factory, "CLOCKS_LIMIT_S", 0.05)
    governing = make_governing(settings(), Targets(), models("net"), HangingGpu(), directly)
    assert governing is not None
    assert governing.governor.grid.sm_clocks_mhz == ()
    assert "hangs has not said within 0.05 s which clocks may be set" in caplog.text


def test_that_nobody_is_there_to_choose_a_clock_is_said(caplog: pytest.LogCaptureFixture) -> None:
    controlled = settings(control=True, device="0")
    assert make_governing(controlled, Targets(), models("one", "two"), FakeGpu((500,)), directly) is None
    assert "--control sets nothing on fake: no model is governed" in caplog.text


def test_a_fixed_policy_is_measured_but_leaves_the_clock_alone() -> None:
    device = FakeGpu((500, 1000))
    governing = make_governing(settings(policy="fixed"), Targets(), models("net"), device, directly)
    assert governing is not None
    assert governing.governor.policy.name == "fixed"
    assert governing.governor.grid.sm_clocks_mhz == ()
    single = settings(policy="fixed", batch_limit=1)
    assert make_governing(single, Targets(), models("net"), device, directly) is not None


def test_what_is_foreseen_is_asked_for_the_grid_that_is_governed() -> None:
    asked: list[OperatingGrid] = []
    device = FakeGpu((500, 1000))
    governing = make_governing(settings(), Targets(), models("net"), device, directly, asked.append)
    assert governing is not None
    assert asked == [governing.governor.grid]
    assert governing.governor.policy.name == "boulton"


def test_the_batch_limit_flag_bounds_the_grid() -> None:
    governing = make_governing(settings(batch_limit=4), Targets(), models("net"), FakeGpu(), directly)
    assert governing is not None
    assert governing.governor.grid.batch_limits == (1, 2, 3, 4)
    assert governing.model == "net"


def test_targets_come_from_the_file_or_are_the_defaults(tmp_path: Path) -> None:
    assert read_targets(settings()) == Targets()
    file = tmp_path / "targets.toml"
    file.write_text("slo_p99_ms = 25\n")
    assert read_targets(settings(targets=file)) == Targets(slo_p99_ms=25.0)
    file.write_text("slo = 25\n")
    with pytest.raises(ConfigError, match=r"--targets: .*unknown key 'slo'"):
        read_targets(settings(targets=file))


def test_knowledge_is_kept_by_device_model_precision_and_policy(state_home: Path, tmp_path: Path) -> None:
    governing = make_governing(settings(), Targets(), models("a/net"), FakeGpu(), directly)
    assert governing is not None
    kept = state_home / "boulton/learned/fake/a%2fnet,FP16,boulton.json"
    assert governing.learned_file == str(kept)
    elsewhere = settings(state_dir=tmp_path / "elsewhere", policy="fixed")
    fixed = make_governing(elsewhere, Targets(), models("net"), FakeGpu(), directly)
    assert fixed is not None
    assert fixed.learned_file == ""


async def test_targets_outlive_the_server_until_its_own_are_others(tmp_path: Path) -> None:
    def start(given: Targets) -> Governing:
        governing = make_governing(settings(state_dir=tmp_path), given, models("net"), FakeGpu(), directly)
        assert governing is not None
        return governing

    await start(Targets()).set_targets(Targets(slo_p99_ms=12.0))
    assert start(Targets()).governor.targets == Targets(slo_p99_ms=12.0)
    assert start(Targets(slo_p99_ms=50.0)).governor.targets == Targets(slo_p99_ms=50.0)


def test_the_time_of_day_is_the_wall_clock_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "localtime", lambda: time.struct_time((2025, 6, 1, 17, 30, 5, 6, 152, 1)))
    assert local_time_of_day() == 17 * 3600 + 30 * 60 + 5


def test_what_is_learned_under_other_fixed_settings_is_kept_apart(state_home: Path) -> None:
    chosen = settings(device="0", control=True, memory_clock_mhz=877, power_limit_w=200.0)
    governing = make_governing(chosen, Targets(), models("net"), FakeGpu((500, 1000)), directly)
    assert governing.learned_file.endswith("/net,FP16-memory-877mhz-limit-200w,boulton.json")


def test_a_clock_that_nobody_lends_yet_is_awaited_and_governed_by_another_then() -> None:
    (whole,) = models("whole", max_batch=0)
    device = FakeGpu()
    governing = make_governing(settings(device="0", control=True), Targets(), [whole], device, directly)
    assert governing is not None
    assert len(governing.governor.grid) == 1
    assert governing.learned_file.endswith("whole,FP16-own-clock,boulton.json")
    device.sm_clocks_mhz = (500, 1000)
    governing = make_governing(settings(device="0", control=True), Targets(), [whole], device, directly)
    assert governing is not None
    assert governing.learned_file.endswith("whole,FP16,boulton.json")
