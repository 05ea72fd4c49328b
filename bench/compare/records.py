"""What was measured of a cell, as it is kept."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from bench.compare.plan import Cell, Subject

KEPT_LATENCIES = 200
"""Of one turn; more are thinned out evenly."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One measurement of a cell.

    Args:
        number: which turn, from 0.
        run: when the run began that it belongs to; turns of one run are side by side.
        batches: how many were run one after another.
        seconds: for how long.
        latencies_ms: of the batches, ascending, thinned to `KEPT_LATENCIES`.
        energy_j: what the device used during `energy_s`; None: not measured.
        energy_s: between two ticks of the counter.
        source: of the energy.
        sm_clock_mhz: in force at the end; None on a CPU.
        temperature_c: likewise.
        throttled: why a GPU was below its clock; empty: it was not.
    """

    number: int
    run: str
    batches: int
    seconds: float
    latencies_ms: tuple[float, ...]
    energy_j: float | None = None
    energy_s: float = 0.0
    source: str = "not-measured"
    sm_clock_mhz: int | None = None
    temperature_c: float | None = None
    throttled: str = ""

    @property
    def p50_ms(self) -> float:
        """The median batch."""
        return statistics.median(self.latencies_ms)

    @property
    def power_w(self) -> float | None:
        """Mean power of the device."""
        return None if self.energy_j is None or self.energy_s <= 0 else self.energy_j / self.energy_s

    def images_per_s(self, batch: int) -> float:
        """Throughput at this batch size."""
        return batch * self.batches / self.seconds

    def joules_per_image(self, batch: int) -> float | None:
        """Energy of an image, idle power included."""
        power_w = self.power_w
        return None if not power_w else power_w / self.images_per_s(batch)


@dataclass(frozen=True, slots=True)
class Start:
    """How a process got ready.

    Args:
        platform: what runs the network, in the engine's own words.
        on_gpu: whether that is a GPU.
        start_s: from the start of the process to its first answer, imports included, plans from the cache.
        build_s: what building took before that, once; None: nothing is built, or it was not seen.
        host_peak_mib: most memory of the process up to the end of this batch size's warm-up; None: not known.
        gpu_mib: what the GPU's memory in use grew by; None: on a CPU, or not measured.
        warm_up_s: how long the warm-up took.
        settled: whether it ended by the rule rather than by its limit.
    """

    platform: str
    on_gpu: bool
    start_s: float
    build_s: float | None
    host_peak_mib: float | None
    gpu_mib: float | None
    warm_up_s: float
    settled: bool


@dataclass(frozen=True, slots=True)
class Record:
    """All that is known of a cell.

    Args:
        cell: which.
        fingerprint: of what was measured and how.
        start: None when it did not get ready.
        turns: in order.
        failure: why it could not be measured to the end; empty: nothing failed.
        idle_w: the device with all processes of the network loaded and idle; None: not measured.
    """

    cell: Cell
    fingerprint: str
    start: Start | None = None
    turns: tuple[Turn, ...] = field(default=())
    failure: str = ""
    idle_w: float | None = None

    def with_turn(self, turn: Turn) -> Record:
        """Return it with one more turn, which replaces one of the same number."""
        others = [old for old in self.turns if old.number != turn.number]
        return replace(self, turns=tuple(sorted([*others, turn], key=lambda one: one.number)), failure="")

    def lacks(self, turns: int) -> tuple[int, ...]:
        """Return the numbers of the turns still to be measured."""
        there = {turn.number for turn in self.turns}
        return tuple(number for number in range(turns) if number not in there)


def as_json(record: Record) -> dict[str, Any]:
    """Return what `read_record` reads."""
    return asdict(record)


def read_record(table: Mapping[str, Any]) -> Record:
    """Read a record. Raises TypeError, KeyError or ValueError for anything else."""
    cell = Cell(Subject(**table["cell"]["subject"]), int(table["cell"]["batch"]))
    start = None if table["start"] is None else Start(**table["start"])
    turns = tuple(_turn(turn) for turn in table["turns"])
    return Record(cell, str(table["fingerprint"]), start, turns, str(table["failure"]), table["idle_w"])


def _turn(table: Mapping[str, Any]) -> Turn:
    known = {one.name for one in fields(Turn)}
    if set(table) != known or not table["latencies_ms"]:
        raise ValueError("not a turn")
    return Turn(**{**table, "latencies_ms": tuple(table["latencies_ms"])})
