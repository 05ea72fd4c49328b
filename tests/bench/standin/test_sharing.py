"""Several processes at one rack, some of them killed at the worst moment."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from child_process import child
from nvml_rack import make_card, make_rack, rack_env

from bench.standin.control import Rack, When

LOCK = "nvmlDeviceSetGpuLockedClocks"
PATIENCE_S = 30.0

PROLOGUE = """
import itertools, sys
import pynvml
pynvml.nvmlInit()
card = pynvml.nvmlDeviceGetHandleByIndex(0)
"""
SET_ONCE = PROLOGUE + "pynvml.nvmlDeviceSetGpuLockedClocks(card, 900, 900)"
SET_MANY = PROLOGUE + "for _ in range(300): pynvml.nvmlDeviceSetGpuLockedClocks(card, 900, 900)"
SET_FOR_EVER = (
    PROLOGUE
    + """
for clock in itertools.cycle(range(210, 1411, 15)):
    pynvml.nvmlDeviceSetGpuLockedClocks(card, clock, clock)
    pynvml.nvmlDeviceGetTotalEnergyConsumption(card)
"""
)
WATCH_ENERGY = (
    PROLOGUE
    + """
last = 0
for _ in range(2000):
    now = pynvml.nvmlDeviceGetTotalEnergyConsumption(card)
    assert now >= last, (now, last)
    last = now
"""
)


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    with make_rack(tmp_path, make_card("ampere", settle_s=0.0)) as rack:
        yield rack


def started(rack: Rack, program: str) -> AbstractContextManager[subprocess.Popen[str]]:
    return child([sys.executable, "-c", program], env=rack_env(rack), text=True)


def wait_for(true: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < give_up_s, "it never happened"
        time.sleep(0.002)


def test_what_one_process_sets_another_sees(rack: Rack) -> None:
    with started(rack, SET_ONCE) as process:
        assert process.wait(PATIENCE_S) == 0
    assert rack.card().locked_sm_mhz == (900, 900)
    assert [entry.pid for entry in rack.set_history()] == [process.pid]


def test_no_call_is_lost_when_many_set_at_once(rack: Rack) -> None:
    with started(rack, SET_MANY) as one, started(rack, SET_MANY) as two, started(rack, SET_MANY) as three:
        assert [process.wait(PATIENCE_S) for process in (one, two, three)] == [0, 0, 0]
    assert rack.calls(LOCK) == len(rack.set_history()) == 900


def test_energy_never_runs_backwards_for_anybody(rack: Rack) -> None:
    rack.keep_busy(0, 1000.0)
    with (
        started(rack, WATCH_ENERGY) as one,
        started(rack, WATCH_ENERGY) as two,
        started(rack, SET_MANY) as three,
    ):
        assert [process.wait(PATIENCE_S) for process in (one, two, three)] == [0, 0, 0]


@pytest.mark.parametrize(("when", "locked"), [("before", None), ("after", (900, 900)), ("holding", None)])
def test_a_process_killed_in_the_middle_of_a_set_harms_nobody_else(
    rack: Rack, when: When, locked: tuple[int, int] | None
) -> None:
    rack.slow(LOCK, 1000.0, when=when, times=1)
    with started(rack, SET_ONCE) as process:
        wait_for(lambda: rack.calls(LOCK) == 1)
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE_S)
    assert rack.card().locked_sm_mhz == locked
    with started(rack, SET_ONCE) as process:
        assert process.wait(PATIENCE_S) == 0
    assert rack.card().locked_sm_mhz == (900, 900)


def test_others_wait_for_who_holds_the_lock_and_go_on_when_it_is_killed(rack: Rack) -> None:
    rack.slow(LOCK, 1000.0, when="holding", times=1)
    with started(rack, SET_ONCE) as holder:
        wait_for(lambda: rack.calls(LOCK) == 1)
        with started(rack, SET_ONCE) as waiter:
            with pytest.raises(subprocess.TimeoutExpired):
                waiter.wait(0.5)
            holder.kill()
            assert waiter.wait(PATIENCE_S) == 0
    assert [entry.pid for entry in rack.set_history()] == [waiter.pid]


def test_a_slow_setter_keeps_nobody_else_waiting(rack: Rack) -> None:
    rack.slow(LOCK, 1000.0, times=1)
    with started(rack, SET_ONCE) as sleeper:
        wait_for(lambda: rack.calls(LOCK) == 1)
        with started(rack, SET_ONCE) as process:
            assert process.wait(PATIENCE_S) == 0
        assert sleeper.poll() is None
    assert rack.card().locked_sm_mhz == (900, 900)


def test_a_setter_has_its_cost_before_its_effect(tmp_path: Path) -> None:
    with (
        make_rack(tmp_path, make_card("ampere", setter_s=1000.0)) as rack,
        started(rack, SET_ONCE) as process,
    ):
        wait_for(lambda: rack.calls(LOCK) == 1)
        assert rack.card().is_default
        assert process.poll() is None


def test_kills_at_random_moments_leave_a_rack_that_works(rack: Rack) -> None:
    chance = random.Random(7)
    for _ in range(12):
        begun = rack.calls(LOCK)
        with started(rack, SET_FOR_EVER) as process:
            wait_for(lambda begun=begun: rack.calls(LOCK) > begun + 3)
            time.sleep(chance.uniform(0.0, 0.02))
            process.kill()
        low, high = rack.card().locked_sm_mhz
        assert low == high
    with started(rack, SET_ONCE) as process:
        assert process.wait(PATIENCE_S) == 0
    assert rack.card().sm_clock_mhz == 900


def test_a_controller_that_dies_with_the_lock_in_hand_harms_nobody(rack: Rack) -> None:
    program = f"""
import os, signal
from pathlib import Path
from bench.standin.control import Rack, When
rack = Rack.open(Path({str(rack.path)!r}), Path({str(rack.library_directory)!r}))
rack.hold_lock()
os.kill(os.getpid(), signal.SIGKILL)
"""
    with started(rack, program) as process:
        assert process.wait(PATIENCE_S) == -signal.SIGKILL
    assert rack.card().is_default
