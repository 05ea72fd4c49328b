from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.revenue import Targets
from server.config import Settings
from server.errors import ConfigError
from server.governing.governor_factory import (
    MAX_CLOCKS,
    batch_limits,
    choose_model,
    make_governing,
    make_grid,
    read_targets,
    thinned,
)


@dataclass
class FakeSpec:
    name: str
    max_batch: int = 8


@dataclass
class FakeScheduler:
    batch_limit: int = 8


@dataclass
class FakeModel:
    spec: FakeSpec
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


def directly(function: object, /) -> object:
    return function()


@given(st.integers(1, 4096))
def test_batch_limits_go_from_one_to_the_largest_in_small_steps(largest: int) -> None:
    limits = batch_limits(largest)
    assert limits[0] == 1
    assert limits[-1] == largest
    assert all(after <= 2 * before for before, after in pairwise(limits))


def test_batch_limits_are_powers_of_two_and_their_middles() -> None:
    assert batch_limits(1) == (1,)
    assert batch_limits(20) == (1, 2, 3, 4, 6, 8, 12, 16, 20)
    assert batch_limits(64) == (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


@given(st.integers(1, 300), st.integers(2, 40))
def test_thinning_keeps_the_ends_and_the_order(count: int, most: int) -> None:
    values = tuple(range(count))
    kept = thinned(values, most)
    assert len(kept) == min(count, most)
    assert (kept[0], kept[-1]) == (0, count - 1)
    assert sorted(set(kept)) == list(kept)


def test_the_grid_has_all_batch_limits_with_a_choice_of_clocks() -> None:
    grid = make_grid(4, tuple(range(100, 1100, 5)))
    assert grid.batch_limits == (1, 2, 3, 4)
    assert len(grid.sm_clocks_mhz) == MAX_CLOCKS
    assert make_grid(4, ()).sm_clocks_mhz == ()


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


def test_a_fixed_policy_is_measured_but_leaves_the_clock_alone() -> None:
    device = FakeGpu((500, 1000))
    governing = make_governing(settings(policy="fixed"), Targets(), models("net"), device, directly)
    assert governing is not None
    assert governing.governor.policy.name == "fixed"
    assert governing.governor.grid.sm_clocks_mhz == ()
    single = settings(policy="fixed", batch_limit=1)
    assert make_governing(single, Targets(), models("net"), device, directly) is not None


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
