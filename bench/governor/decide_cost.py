"""What a decision costs: `BoultonPolicy.decide` on a grid of 128 batches x 110 clocks.

    python -m bench.governor.decide_cost [--quick] [--rounds N] [--seconds S] [--save]

A simulated V100 is governed through a day of traffic that lasts `--seconds` decisions, as in production; its
windows are kept, and then decided on again, once a round, by a policy that knows nothing yet. So a round has
every state that a policy comes through, from the first batch to a full memory. The V100 has 187 clocks; its
highest 110 are the grid of the target, and all of them are measured beside it.

In a row, a decision finds everything in the caches that it needs; once a second it does not. So the same is
measured as well

- within a simulation, where a simulated second lies between two decisions, as in the tournament;
- after other work, which goes over more memory than the caches hold, and runs other code.

Processor time is judged, in two ways. Every round has the same decisions, so the shortest of a decision's
rounds is what it costs where nothing disturbs it, with caches as cold as they are in every round. And each
round by itself, the median of which has whatever else the machine did: beside a neighbour of a virtual
machine (see `bench.undisturbed`) decisions take nearly twice as long. The p99 by the clock on the wall is
told, and not judged.
"""

from __future__ import annotations

import copy
import json
import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from rich.console import Console

from bench.serving import command
from bench.serving.report import Figure, Result
from bench.serving.rounds import Spread, in_turns
from bench.serving.settings import Settings
from bench.simulate.run import simulate
from bench.simulate.scenario import Scenario, grid_of
from optimizer.operating_point import OperatingGrid
from optimizer.policies.boulton import BoultonPolicy
from optimizer.policies.policy import Decision
from optimizer.targets import Targets
from optimizer.telemetry import Window
from optimizer.twin.arrivals import diurnal
from optimizer.twin.profile import load_profile

GPU, NETWORK, MAX_BATCH = "v100", "resnet50", 128
CLOCKS = 110
AT_MOST_MS = 2.0
DECISIONS_A_SECOND_OF_ROUND = 60
_RATE_PER_S, _SWING = 900.0, 0.9
_TARGETS = Targets(slo_p99_ms=100.0, price_per_1000_images=0.01, energy_price_per_kwh=0.3)


_FORMS = ("energy", "edp")
_SWEPT_BYTES = 48 << 20
_IN_A_ROW, _SIMULATION, _OTHER_WORK = "in a row", "within a simulation", "after other work"
MakeReady = Callable[[Window], Window]


@dataclass(frozen=True, slots=True)
class Recording:
    """Windows that were measured one after the other, and the settings that they were chosen from."""

    grid: OperatingGrid
    targets: Targets
    windows: Sequence[Window]

    def __str__(self) -> str:
        limits, clocks = len(self.grid.batch_limits), len(self.grid.sm_clocks_mhz)
        form = "" if self.targets.form == "profit" else f", {self.targets.form}"
        return f"{limits} batches x {clocks} clocks{form}"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one decision cost.

    Args:
        processor_ms: time of the processor.
        wall_ms: time on the wall.
        faults: pages that were faulted in.
    """

    processor_ms: float
    wall_ms: float
    faults: int


def run(settings: Settings, console: Console) -> Result:
    """Record, then decide again."""
    decisions = max(20, round(settings.seconds * DECISIONS_A_SECOND_OF_ROUND))
    judged, whole = record(CLOCKS, decisions), record(None, decisions)
    averages = [record(CLOCKS, decisions, replace(_TARGETS, form=form)) for form in _FORMS]
    work = OtherWork()
    turns: dict[str, Callable[[], list[Cost]]] = {
        f"{each}, {_IN_A_ROW}": partial(costs, each) for each in (judged, whole, *averages)
    }
    turns |= {f"{each}, {_OTHER_WORK}": partial(costs, each, work) for each in (judged, *averages)}
    turns[f"{judged}, {_SIMULATION}"] = partial(costs_in_simulation, decisions)
    found = in_turns(turns, settings.rounds, console)
    conditions = (
        f"simulated {GPU}, {NETWORK}, a day of traffic in {decisions} decisions, from an empty memory",
        "processor time of the deciding thread (CLOCK_THREAD_CPUTIME_ID)",
        f"other work: {_SWEPT_BYTES >> 20} MiB written to, a text of many numbers sorted, written and read",
    )
    return Result("decide", "What a decision costs", list(_figures(found, str(judged))), conditions)


def record(clocks: int | None, decisions: int, targets: Targets = _TARGETS) -> Recording:
    """Let the policy govern, a decision a second.

    Args:
        clocks: how many of the GPU's highest clocks it may set; None for all.
        decisions: how many it makes.
        targets: what it pursues.
    """
    scenario = _scenario(clocks, decisions, targets)
    windows: list[Window] = []
    simulate(scenario, lambda grid: _Listener(grid, windows))
    return Recording(grid_of(scenario), targets, windows)


def costs(recording: Recording, ready: MakeReady | None = None) -> list[Cost]:
    """Return what every decision cost a fresh policy; `ready` is called before each, with its window."""
    ready = ready or _as_it_is
    watched = _Watched(BoultonPolicy(recording.grid))
    for window in recording.windows:
        watched.decide(ready(window), recording.targets)
    return watched.found


def costs_in_simulation(decisions: int) -> list[Cost]:
    """Return what every decision cost between two simulated seconds."""
    found: list[Cost] = []
    simulate(_scenario(CLOCKS, decisions, _TARGETS), lambda grid: _Watched(BoultonPolicy(grid), found))
    return found


class OtherWork:
    """What a process may do between two decisions: called, it leaves the caches full of other things."""

    def __init__(self) -> None:
        self._swept = np.zeros(_SWEPT_BYTES // 8)
        self._numbers = [float(number % 997) for number in range(5_000)]

    def __call__(self, window: Window) -> Window:
        """Work; then return a window that was made just now, as when it is measured."""
        self._swept += 1.0
        self._numbers = json.loads(json.dumps(sorted(self._numbers, key=lambda number: -number)))
        return copy.deepcopy(window)


def _as_it_is(window: Window) -> Window:
    return window


def _figures(found: Mapping[str, Sequence[Sequence[Cost]]], judged: str) -> Iterable[Figure]:
    for what, rounds in found.items():
        at_most = AT_MOST_MS if what.startswith(judged) and not any(form in what for form in _FORMS) else None
        undisturbed = [shortest(rounds)]
        yield Figure(f"{what}, p50", _percentile(undisturbed, 50, _processor_ms), "ms")
        yield Figure(f"{what}, p99", _percentile(undisturbed, 99, _processor_ms), "ms", at_most=at_most)
        disturbed_too = _percentile(rounds, 99, _processor_ms)
        yield Figure(f"{what}, by round, p99", disturbed_too, "ms", at_most=at_most)
        if what.endswith(_IN_A_ROW):
            continue
        yield Figure(f"{what}, on the wall, p99", _percentile(rounds, 99, lambda cost: cost.wall_ms), "ms")
        faults = Spread.of([float(np.mean([cost.faults for cost in costs])) for costs in rounds])
        yield Figure(f"{what}, page faults, mean", faults, "pages")


def shortest(rounds: Sequence[Sequence[Cost]]) -> list[Cost]:
    """Return of each decision the round in which it took the least processor time."""
    return [min(times, key=_processor_ms) for times in zip(*rounds, strict=True)]


def _processor_ms(cost: Cost) -> float:
    return cost.processor_ms


def _percentile(rounds: Sequence[Sequence[Cost]], rank: int, of: Callable[[Cost], float]) -> Spread:
    return Spread.of([float(np.percentile([of(cost) for cost in costs], rank)) for costs in rounds])


def _scenario(clocks: int | None, decisions: int, targets: Targets) -> Scenario:
    profile = load_profile(GPU)
    axis = profile.sm_clocks_mhz[-(clocks or 0) :]
    arrivals_s = diurnal(_RATE_PER_S, _SWING, float(decisions), float(decisions), seed=1)
    profile = replace(profile, sm_clocks_mhz=axis)
    return Scenario(profile, NETWORK, arrivals_s, float(decisions), targets, seed=1, max_batch=MAX_BATCH)


class _Listener:
    """The policy, and who keeps the windows that it was shown."""

    def __init__(self, grid: OperatingGrid, windows: list[Window]) -> None:
        self._policy, self._windows = BoultonPolicy(grid), windows

    @property
    def name(self) -> str:
        return self._policy.name

    def decide(self, window: Window, targets: Targets) -> Decision:
        self._windows.append(window)
        return self._policy.decide(window, targets)


class _Watched:
    """The policy, and who keeps what its decisions cost."""

    def __init__(self, policy: BoultonPolicy, found: list[Cost] | None = None) -> None:
        self._policy = policy
        self.found: list[Cost] = [] if found is None else found

    @property
    def name(self) -> str:
        return self._policy.name

    def decide(self, window: Window, targets: Targets) -> Decision:
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        began_ns, began_wall_ns = time.thread_time_ns(), time.perf_counter_ns()
        decision = self._policy.decide(window, targets)
        took_ns, took_wall_ns = time.thread_time_ns() - began_ns, time.perf_counter_ns() - began_wall_ns
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        self.found.append(Cost(took_ns / 1e6, took_wall_ns / 1e6, faults))
        return decision


if __name__ == "__main__":
    command.main(run, __doc__)
