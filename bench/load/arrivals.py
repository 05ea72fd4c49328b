"""When requests are due. Pure: seeds and files in, times out."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from bench.load.plan import Closed, LoadPlan, Poisson, Trace
from server.errors import ConfigError

_CHUNK = 4096


def poisson_times(requests_per_s: float, horizon_s: float, seed: tuple[int, ...]) -> Iterator[float]:
    """Yield the times of a Poisson process before `horizon_s`; the same for the same seed."""
    random = np.random.default_rng(seed)
    last_s = 0.0
    while True:
        for time_s in (last_s + np.cumsum(random.exponential(1.0 / requests_per_s, _CHUNK))).tolist():
            if time_s >= horizon_s:
                return
            yield time_s
            last_s = time_s


def load_trace(path: Path) -> Trace:
    """Read a CSV file with the columns `time_s,images`. Raises `ConfigError` that names the line."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            arrivals = tuple(_arrivals(rows, path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"--trace {path} cannot be read: {error}") from error
    if not arrivals:
        raise ConfigError(f"--trace {path} holds no arrivals; expected lines of time_s,images")
    return Trace(path, arrivals)


def _arrivals(rows: csv.DictReader[str], path: Path) -> Iterator[tuple[float, int]]:
    if not {"time_s", "images"} <= set(rows.fieldnames or ()):
        raise ConfigError(f"--trace {path} must start with the line time_s,images, got {rows.fieldnames}")
    last_s = 0.0
    for row in rows:
        time_s, images = _arrival(row, f"--trace {path}, line {rows.line_num}")
        if time_s < last_s:
            raise ConfigError(f"--trace {path}, line {rows.line_num}: time {time_s:g} is before {last_s:g}")
        last_s = time_s
        if images:
            yield time_s, images


def _arrival(row: dict[str, str], where: str) -> tuple[float, int]:
    try:
        time_s, images = float(row["time_s"]), int(row["images"])
    except (TypeError, ValueError):
        raise ConfigError(f"{where}: expected a time in seconds and a number of images, got {row}") from None
    if not 0.0 <= time_s < math.inf or images < 0:
        raise ConfigError(f"{where}: time and images must be 0 or more, got {time_s:g},{images}")
    return time_s, images


def split_images(images: int, most: int) -> Iterator[int]:
    """Yield the sizes of the requests that carry `images` images, at most `most` each."""
    while images > 0:
        yield min(images, most)
        images -= most


def arrivals_of(plan: LoadPlan, index: int, most: int) -> Iterable[tuple[float, int]]:
    """Return `(time_s, images)` of each request of the process `index`, from the start of the warm-up.

    Args:
        plan: the run.
        index: of the process.
        most: images that one request may carry.
    """
    horizon_s = plan.warmup_s + plan.duration_s
    match plan.arrivals:
        case Poisson(rate):
            times = poisson_times(rate / plan.processes, horizon_s, (plan.seed, index))
            return ((time_s, plan.batch or 1) for time_s in times)
        case Trace(_, arrivals):
            dealt = arrivals[index :: plan.processes]
            return (
                (time_s, part)
                for time_s, images in dealt
                if time_s <= horizon_s
                for part in split_images(images, most)
            )
        case Closed():
            raise ValueError("a closed loop has no arrival times")


def sizes_of(plan: LoadPlan, most: int) -> tuple[int, ...]:
    """Every number of images that a request of this plan may carry, ascending."""
    if isinstance(plan.arrivals, Trace):
        return tuple(
            sorted({part for _, images in plan.arrivals.arrivals for part in split_images(images, most)})
        )
    return (plan.batch or 1,)
