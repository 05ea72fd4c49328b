"""Whether data can be believed, and which runs are left out of the comparison, each with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.study.runs import Cell, Measure, Run, by_cell, measure_of
from bench.study.statistics import far_out

FENCE = 3.0
"""Interquartile ranges: beyond them Tukey calls a value far out."""

LEAST_FOR_FENCES = 8
"""Quartiles of fewer runs say little."""

_AGREES_WITHIN = 0.02


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked. `passed` is False when a reader should be wary."""

    name: str
    passed: bool
    finding: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """A run that is not compared, and why."""

    run: Run
    reason: str


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The runs that are compared, and those that are not."""

    kept: tuple[Run, ...]
    dropped: tuple[Dropped, ...]


def clean(runs: Sequence[Run], least_f1: float = 0.0, fence: float = FENCE) -> Cleaned:
    """Leave out trainings that failed, then those far out in their cell.

    Far out in the device's use, or in what an image costs, means that something else ran beside it, or that
    it was set up otherwise. How good the network became is no reason beyond `least_f1`.

    Args:
        runs: all.
        least_f1: a network below has learned nothing, such as one that always answers the same class.
        fence: interquartile ranges outside the quartiles of the cell.
    """
    failed = {run: f"learned nothing: F1 {run.f1:.2f}" for run in runs if run.f1 < least_f1}
    reasons = failed | _strange([run for run in runs if run not in failed], measure_of(runs), fence)
    return Cleaned(
        tuple(run for run in runs if run not in reasons),
        tuple(Dropped(run, reasons[run]) for run in runs if run in reasons),
    )


def check(runs: Sequence[Run]) -> tuple[Check, ...]:
    """Check all runs of a study, before any is left out."""
    checks = (_units(runs), _counts(runs), _gaps(runs), _duplicates(runs), _limits(runs), _shares(runs))
    return tuple(found for found in checks if found is not None)


def _strange(runs: Sequence[Run], measure: Measure, fence: float) -> dict[Run, str]:
    reasons: dict[Run, str] = {}
    for own in by_cell(runs).values():
        if len(own) >= LEAST_FOR_FENCES:
            reasons |= _outside(own, measure.name, measure.of, fence)
            if all(run.gpu_use is not None for run in own):
                reasons |= _outside(own, "use of the device", lambda run: run.gpu_use or 0.0, fence)
    return reasons


def _outside(own: Sequence[Run], name: str, of: Callable[[Run], float], fence: float) -> dict[Run, str]:
    values = [of(run) for run in own]
    flags = far_out(values, fence)
    return {
        run: f"{name} {value:.3g} is far out"
        for run, value, strange in zip(own, values, flags, strict=True)
        if strange
    }


def _units(runs: Sequence[Run]) -> Check | None:
    """Energy against power times duration: a column in another unit is off by a power of ten."""
    ratios = [
        run.energy.joules / (run.power_w * run.duration_s)
        for run in runs
        if run.energy.joules is not None and run.power_w
    ]
    if not ratios:
        return None
    agrees = all(abs(ratio - 1.0) <= _AGREES_WITHIN for ratio in ratios)
    finding = f"{min(ratios):.4g} to {max(ratios):.4g} times mean power x duration"
    verdict = "so it is in the unit it was read as" if agrees else "so its unit, or a run, is wrong"
    return Check("unit of energy", agrees, f"energy is {finding}, {verdict}")


def _counts(runs: Sequence[Run]) -> Check:
    counts = {cell: len(own) for cell, own in by_cell(runs).items()}
    usual = Counter(counts.values()).most_common(1)[0][0]
    others = [f"{cell}: {count}" for cell, count in counts.items() if count != usual]
    finding = f"{len(counts)} cells of {usual} runs" + (f", but {'; '.join(others)}" if others else "")
    return Check("runs per cell", not others, finding)


def _gaps(runs: Sequence[Run]) -> Check:
    """Cells that the other axes lead one to expect."""
    there = {run.cell for run in runs}
    axes = [sorted({cell[axis] for cell in there}, key=str) for axis in range(3)]
    wanted = [Cell(gpu, net, int(size)) for gpu in axes[0] for net in axes[1] for size in axes[2]]  # type: ignore[arg-type]
    missing = [str(cell) for cell in wanted if cell not in there]
    return Check("cells without runs", not missing, "; ".join(missing) or "none")


def _duplicates(runs: Sequence[Run]) -> Check:
    counts = Counter((run.cell, run.number) for run in runs)
    twice = [f"{cell}, run {number}" for (cell, number), count in counts.items() if count > 1]
    return Check("runs told twice", not twice, "; ".join(twice) or "none")


def _limits(runs: Sequence[Run]) -> Check | None:
    known = [run for run in runs if run.power_w and run.power_limit_w]
    above = [
        f"{run.cell}, run {run.number}" for run in known if (run.power_w or 0) > (run.power_limit_w or 0)
    ]
    if not known:
        return None
    return Check("mean power above the limit", not above, "; ".join(above) or "none")


def _shares(runs: Sequence[Run]) -> Check:
    """F1, accuracy and use are shares."""
    strange = [
        f"{run.cell}, run {run.number}"
        for run in runs
        if not all(0.0 <= share <= 1.0 for share in (run.f1, run.accuracy, run.gpu_use or 0.0))
    ]
    return Check("shares outside 0 to 1", not strange, "; ".join(strange) or "none")
