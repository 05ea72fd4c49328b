"""Records of a comparison, made by hand."""

from __future__ import annotations

from bench.compare.conditions import Conditions
from bench.compare.plan import Cell, Settings, Subject
from bench.compare.records import Record, Start, Turn
from bench.serving.machine import Machine

RUN = "2026-01-01T00:00:00+00:00"


def cell(engine: str = "pytorch", batch: int = 8, network: str = "net", precision: str = "fp32") -> Cell:
    return Cell(Subject(network, precision, engine), batch)


def start(*, on_gpu: bool = False) -> Start:
    return Start("somewhere", on_gpu, 1.5, None, 100.0, 300.0 if on_gpu else None, 0.6, settled=True)


def turn(number: int, batch_ms: float, power_w: float | None = None, run: str = RUN) -> Turn:
    energy_j = None if power_w is None else power_w * 2.0
    source = "not-measured" if power_w is None else "rapl"
    return Turn(number, run, 100, 0.1 * batch_ms, (batch_ms,) * 5, energy_j, 2.0, source)


def record(where: Cell, batches_ms: list[float], power_w: float | None = None, run: str = RUN) -> Record:
    turns = tuple(turn(number, ms, power_w, run) for number, ms in enumerate(batches_ms))
    return Record(where, "f", start(), turns)


def conditions() -> Conditions:
    machine = Machine("some CPU", 2, 8.0, "6.1", "3.11", {"boulton": "0"}, 0.0)
    return Conditions("boulton compare", "2026-01-01", machine, None, False, Settings(), None, {}, (), (), ())
