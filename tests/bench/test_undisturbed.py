from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from bench.undisturbed import NONE, Core, Patience, spin

LOOP_S = 1e-3
ALONE, BESIDE = LOOP_S, 1.9 * LOOP_S
PATIENCE = Patience(at_once_s=1.0, first_s=0.1, share=2.0)


class Machine:
    """A core whose neighbour comes and goes by its own clock."""

    def __init__(self, *stretches_s: float) -> None:
        """Alternately beside somebody and alone, for so long each, then always alone."""
        self.now_s = 0.0
        self._stretches_s = stretches_s

    def clock(self) -> float:
        return self.now_s

    def probe(self) -> float:
        took_s = BESIDE if self.disturbed else ALONE
        self.now_s += took_s
        return took_s

    @property
    def disturbed(self) -> bool:
        end_s = 0.0
        for place, stretch_s in enumerate(self._stretches_s):
            end_s += stretch_s
            if self.now_s < end_s:
                return place % 2 == 0
        return False


def core_of(machine: Machine, patience: Patience = PATIENCE) -> Core:
    return Core(patience, probe=machine.probe, clock=machine.clock)


def works(core: Core, machine: Machine, seconds: float) -> Iterator[bool]:
    """Wait before each run of a tenth of a second, and say whether the core was alone."""
    until_s = machine.now_s + seconds
    while machine.now_s < until_s:
        yield core.wait()
        machine.now_s += 0.1


def test_a_loop_takes_time() -> None:
    assert 0.0 < spin() < 10.0


def test_it_waits_until_the_neighbour_has_gone() -> None:
    machine = Machine(0.05, 0.2, 0.6)  # beside, alone, beside
    core = core_of(machine)
    machine.now_s = 0.0
    assert core.wait()
    machine.now_s = 0.3
    assert not core.is_alone()
    assert core.wait()
    assert machine.now_s == pytest.approx(0.85, abs=0.01)
    assert core.is_alone()


def test_it_gets_to_know_the_core_before_the_first_run() -> None:
    machine = Machine(0.05)
    core = core_of(machine)
    assert core.wait()
    assert machine.now_s >= 0.1
    assert not machine.disturbed


def test_its_patience_for_one_run_has_an_end() -> None:
    machine = Machine(0.0, 0.5, math.inf)
    core = core_of(machine)
    assert core.wait()
    machine.now_s = 0.5
    assert not core.wait()
    assert machine.now_s == pytest.approx(1.5, abs=0.01)


def test_its_patience_altogether_is_a_multiple_of_the_work() -> None:
    machine = Machine(0.0, 0.5, math.inf)
    alone = list(works(core_of(machine), machine, 300.0))
    worked_s = 0.1 * len(alone)
    assert 300.0 - worked_s <= PATIENCE.at_once_s + PATIENCE.share * worked_s + 0.5
    assert not all(alone)


def test_without_patience_the_first_look_is_taken_for_undisturbed() -> None:
    machine = Machine(math.inf)
    assert core_of(machine, NONE).wait()
    assert machine.now_s < 0.01


def test_without_patience_nobody_waits_for_a_neighbour_to_go() -> None:
    machine = Machine(0.0, 0.5, math.inf)
    core = core_of(machine, NONE)
    assert core.wait()
    machine.now_s = 0.5
    assert not core.wait()
    assert machine.now_s < 0.51
