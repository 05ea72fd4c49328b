"""Whether a comparison repeats an earlier one on the same machine: cell by cell, by a stated rule.

A cell agrees when its medians are apart by `NOISE_ALLOWED` at most. Where they are not, it is told whether
one of the two was noisy by itself (the two halves of its turns disagree by more than that), so that no more
was to be expected, or whether both were quiet and differ all the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from bench.compare.plan import Cell, Subject
from bench.compare.summary import NOISE_ALLOWED, Line
from server.errors import ConfigError


class Verdict(Enum):
    """What two measurements of a cell say of each other."""

    AGREES = "agrees"
    TOO_NOISY = "too noisy"
    DIFFERS = "differs"
    OTHERWISE = "measured otherwise"


@dataclass(frozen=True, slots=True)
class Earlier:
    """A cell of an earlier comparison.

    Args:
        fingerprint: of what was measured, on what and how.
        p50_ms: median batch.
        images_per_s: median throughput.
        halves_apart: by what share the two halves of its turns differed; None: too few turns to tell.
    """

    fingerprint: str
    p50_ms: float
    images_per_s: float
    halves_apart: float | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """A cell measured twice; `apart`: the share by which batch time or throughput differ, the larger one."""

    cell: Cell
    earlier_ms: float
    now_ms: float
    apart: float
    verdict: Verdict


def read_earlier(path: Path) -> dict[Cell, Earlier]:
    """Read the measured cells of a `compare.json`. Raises ConfigError for anything else."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["cells"]
        found = dict(_earlier(row) for row in rows if row["p50_ms"] is not None)
    except OSError as error:
        raise ConfigError(f"--against {path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--against {path} is no comparison: the compare.json of an earlier run is needed"
        ) from error
    if not found:
        raise ConfigError(f"--against {path} holds no cell that was measured: run that comparison again")
    return found


def agreements(lines: Sequence[Line], earlier: Mapping[Cell, Earlier]) -> tuple[Agreement, ...]:
    """Compare what was measured both times, in the order of the lines."""
    return tuple(
        _agreement(line, earlier[line.cell]) for line in lines if line.p50_ms and line.cell in earlier
    )


def agreement_text(found: Sequence[Agreement]) -> str:
    """Say in a sentence whether the two agree."""
    if not found:
        return "against the earlier run: no cell was measured both times"
    told = [
        f"{len(these)} {verdict.value}{_named(these) if verdict is not Verdict.AGREES else ''}"
        for verdict in Verdict
        if (these := [one for one in found if one.verdict is verdict])
    ]
    worst = max(one.apart for one in found)
    return (
        f"against the earlier run, of {len(found)} cells, {NOISE_ALLOWED:.0%} allowed, largest {worst:.1%}: "
        + "; ".join(told)
    )


def _earlier(row: Mapping[str, Any]) -> tuple[Cell, Earlier]:
    cell = Cell(Subject(str(row["network"]), str(row["precision"]), str(row["engine"])), int(row["batch"]))
    apart = row["halves_apart"]
    return cell, Earlier(
        str(row["record"]["fingerprint"]),
        float(row["p50_ms"]),
        float(row["images_per_s"]),
        None if apart is None else float(apart),
    )


def _agreement(line: Line, earlier: Earlier) -> Agreement:
    assert line.p50_ms is not None  # noqa: S101 - the caller looked
    assert line.images_per_s is not None  # noqa: S101 - measured together
    now_ms, rate = line.p50_ms.value, line.images_per_s.value
    apart = max(_apart(now_ms, earlier.p50_ms), _apart(rate, earlier.images_per_s))
    return Agreement(line.cell, earlier.p50_ms, now_ms, apart, _verdict(line, earlier, apart))


def _verdict(line: Line, earlier: Earlier, apart: float) -> Verdict:
    if line.record.fingerprint != earlier.fingerprint:
        return Verdict.OTHERWISE
    if apart <= NOISE_ALLOWED:
        return Verdict.AGREES
    noisy = line.noisy or (earlier.halves_apart or 0.0) > NOISE_ALLOWED
    return Verdict.TOO_NOISY if noisy else Verdict.DIFFERS


def _apart(one: float, other: float) -> float:
    """As the halves of a cell's turns are compared: over the smaller."""
    return abs(one - other) / min(one, other)


def _named(these: Sequence[Agreement]) -> str:
    return " (" + ", ".join(f"{one.cell.subject} b{one.cell.batch}: {one.apart:.1%}" for one in these) + ")"
