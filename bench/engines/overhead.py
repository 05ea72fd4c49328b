"""What an engine costs beside the framework that it runs: checks, slots, and at most one copy of the pixels.

    python -m bench.engines.overhead [--runs N] [--save]

Each batch is split into the framework's own run and the rest, both measured in the same call, so that no
noise between runs enters the difference; the unit is processor time of the calling thread, so that neighbours
on the machine do not take part. The network is as small as can be (pixels in, means out), which makes the
ratio the worst case; what its run drives out of the caches, the engine must fetch again. The clock and the
stopwatch are driven out too: in turns with the engine, the framework is run alone in the same way, and what
shows around it there is taken off as the ruler's own thickness.

"In slots" is the engine's own tuple of slots, as the scheduler passes it; "elsewhere" a batch that does not
lie there, as one from shared memory; "short" one that is filled up to a served size, in slots or elsewhere.
The one copy that an engine may make is measured by itself, in turns with the engine and after a run of the
framework as there, and is stated beside the engine's time, of which it is part.

The ruler is thus what would be seen around an engine that did nothing at all, the framework called at once.
It grows with the framework's run, because the stopwatch and the interpreter must be fetched again after it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from rich.table import Table

from bench.console import make_console
from bench.engines.stopwatch import split_run
from bench.engines.subjects import CLOCK, SUBJECTS, Subject, framework_versions, missing
from bench.serving.machine import this_machine
from server.engines.engine import Array

TARGET_US = 50.0
"""Bound on an engine's own time a batch, one copy not counted."""

RESULTS = Path(__file__).parents[1] / "results"
SIZE = 224
MAX_BATCH = 32
_WARM_UPS = 20


@dataclass(frozen=True, slots=True)
class Overhead:
    """One engine in one situation; medians over batches, in microseconds.

    Args:
        engine: its name.
        batch: images asked for.
        situation: `in slots`, `elsewhere`, `short` or `short elsewhere`.
        own_us: the engine's time outside the framework's run, a copy included.
        own_p99_us: the 99th percentile of that.
        copy_us: one copy of the batch's bytes, where the engine makes one; else 0.
        framework_us: the framework's own run.
        ruler_us: what measuring takes, not part of `own_us`.
    """

    engine: str
    batch: int
    situation: str
    own_us: float
    own_p99_us: float
    copy_us: float
    framework_us: float
    ruler_us: float

    @property
    def ratio(self) -> float:
        """The engine's time over the framework's."""
        return self.own_us / self.framework_us

    @property
    def met(self) -> bool:
        """Whether the engine keeps to the target."""
        return self.own_us - self.copy_us < TARGET_US


def measure(runs: int, batches: Sequence[int] = (1, 8, MAX_BATCH)) -> Iterator[Overhead]:
    """Measure every engine that is installed in every situation.

    Args:
        runs: batches of each kind, at least 1.
        batches: images, each at most `MAX_BATCH`.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "mean.onnx"
        onnx.save(mean_network(), path)
        for name in SUBJECTS.keys() - missing().keys():
            for batch in batches:
                yield from _situations(name, path, batch, runs)


def mean_network() -> onnx.ModelProto:
    """The mean of each image: UINT8 `image` [batch, 224, 224, 3] to FP32 `mean` [batch, 3]."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2], keepdims=0),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ("batch", SIZE, SIZE, 3))
    mean = helper.make_tensor_value_info("mean", TensorProto.FLOAT, ("batch", 3))
    graph = helper.make_graph(nodes, "mean", [image], [mean])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _situations(name: str, path: Path, batch: int, runs: int) -> Iterator[Overhead]:
    elsewhere = np.ones((batch, SIZE, SIZE, 3), np.uint8)
    any_size = SUBJECTS[name](path, MAX_BATCH, ())
    (slots,) = own = any_size.engine.slots(batch)
    slots[...] = elsewhere
    copy = partial(np.copyto, slots, elsewhere)
    bare = any_size.bare(slots)
    yield _measured(name, "in slots", any_size, own, bare, runs)
    needed = None if any_size.engine.reads_foreign_memory else copy
    yield _measured(name, "elsewhere", any_size, (elsewhere,), bare, runs, needed)
    any_size.engine.close()
    if batch < MAX_BATCH:
        whole = SUBJECTS[name](path, MAX_BATCH, (MAX_BATCH,))
        (slots,) = own = whole.engine.slots(batch)
        copy = partial(np.copyto, slots, elsewhere)
        bare = whole.bare(*whole.engine.input_buffers)
        yield _measured(name, "short", whole, own, bare, runs)
        yield _measured(name, "short elsewhere", whole, (elsewhere,), bare, runs, copy)
        whole.engine.close()


def _measured(
    name: str,
    situation: str,
    subject: Subject,
    inputs: tuple[Array, ...],
    bare: Callable[[], object],
    runs: int,
    copy: Callable[[], object] | None = None,
) -> Overhead:
    whole, alone, copied_us = [], [], []
    for _ in range(_WARM_UPS + runs):
        alone.append(split_run(bare, subject.inside, CLOCK))
        if copy is not None:
            copied_us.append(timed_us(copy))
            bare()
        whole.append(split_run(lambda: subject.engine.run(inputs), subject.inside, CLOCK))
    ruler_us = statistics.median(1e6 * split.around_s for split in alone[_WARM_UPS:])
    own_us = sorted(1e6 * split.around_s - ruler_us for split in whole[_WARM_UPS:])
    framework_us = statistics.median(1e6 * split.inside_s for split in whole[_WARM_UPS:])
    p99_us = own_us[min(len(own_us) - 1, int(0.99 * len(own_us)))]
    middle_us = statistics.median(own_us)
    copy_us = statistics.median(copied_us[_WARM_UPS:]) if copied_us else 0.0
    return Overhead(name, len(inputs[0]), situation, middle_us, p99_us, copy_us, framework_us, ruler_us)


def timed_us(work: Callable[[], object]) -> float:
    """Return how long some work takes."""
    began_s = CLOCK()
    work()
    return 1e6 * (CLOCK() - began_s)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and save where that was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.engines.overhead", description=__doc__)
    parser.add_argument("--runs", type=int, default=500, help="batches of each kind (default: 500)")
    parser.add_argument("--save", action="store_true", help="keep the figures under bench/results")
    given = parser.parse_args(arguments)
    if given.runs < 1:
        parser.error(f"--runs must be at least 1, got {given.runs}")
    machine = this_machine()
    rows = sorted(measure(given.runs), key=lambda row: (row.engine, row.situation, row.batch))
    console = make_console()
    console.print(str(machine), highlight=False)
    console.print(_table(rows))
    for reason in missing().values():
        console.print(f"not measured: {reason}", highlight=False, markup=False)
    if given.save:
        now = datetime.now(UTC)
        report = {
            "date": now.isoformat(timespec="seconds"),
            "target_us": TARGET_US,
            "machine": asdict(machine),
            "frameworks": framework_versions(),
        }
        report["rows"] = [asdict(row) | {"ratio": row.ratio, "met": row.met} for row in rows]
        path = RESULTS / f"engine-overhead-{now:%Y%m%d-%H%M%S}.json"
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        console.print(f"kept in {path}")


def _table(rows: Sequence[Overhead]) -> Table:
    table = Table(title="An engine's own time a batch, beside the framework's run (us of processor time)")
    for heading in (
        "engine",
        "batch",
        "images lie",
        "own",
        "own p99",
        "of it a copy",
        "framework",
        "ruler",
        "ratio",
        "",
    ):
        table.add_column(heading, justify="left" if heading in ("engine", "images lie") else "right")
    for row in rows:
        figures = (row.own_us, row.own_p99_us, row.copy_us, row.framework_us, row.ruler_us)
        verdict = "met" if row.met else f"missed: {TARGET_US:.0f} us"
        texts = [f"{figure:.1f}" for figure in figures]
        table.add_row(row.engine, str(row.batch), row.situation, *texts, f"{row.ratio:.3f}", verdict)
    return table


if __name__ == "__main__":
    main()
