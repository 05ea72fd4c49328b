"""Arrivals for simulation: times of single images in seconds, ascending. The same seed gives the same times.

Every maker but the trace is a Poisson process whose rate moves: a process of the highest rate, of which every
arrival is kept with the probability rate(t) / highest rate (thinning: Lewis and Shedler, 1979).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from optimizer.settings_table import SettingsError

Times = NDArray[np.float64]
Rates = Callable[[Times], Times]

TRACE_COLUMNS = ("time_s", "images")


def poisson(rate_per_s: float, duration_s: float, *, seed: int = 0) -> Times:
    """Return Poisson arrivals from 0 to `duration_s`; none when the rate is 0."""
    return _homogeneous(rate_per_s, duration_s, np.random.default_rng(seed))


def steps(parts: Sequence[tuple[float, float]], *, seed: int = 0) -> Times:
    """Return Poisson arrivals through steps of (duration_s, rate_per_s), one after the other."""
    random, start_s = np.random.default_rng(seed), 0.0
    pieces: list[Times] = []
    for duration_s, rate_per_s in parts:
        pieces.append(start_s + _homogeneous(rate_per_s, duration_s, random))
        start_s += duration_s
    return np.concatenate(pieces) if pieces else np.empty(0)


def diurnal(
    mean_per_s: float, amplitude: float, period_s: float, duration_s: float, *, seed: int = 0
) -> Times:
    """Return arrivals at mean * (1 - amplitude * cos(2 pi t / period)): least at first, as at midnight.

    The amplitude is a share of the mean, from 0 to 1.
    """

    def rates(times_s: Times) -> Times:
        return mean_per_s * (1.0 - amplitude * np.cos(2.0 * np.pi / period_s * times_s))

    return _thinned(rates, mean_per_s * (1.0 + amplitude), duration_s, seed)


def mmpp(
    rates_per_s: tuple[float, float], mean_stays_s: tuple[float, float], duration_s: float, *, seed: int = 0
) -> Times:
    """Return arrivals of a two-state Markov-modulated Poisson process, which starts in the first state.

    It stays in each state for an exponentially distributed time of the given mean.
    """
    random, now_s, state = np.random.default_rng(seed), 0.0, 0
    pieces: list[Times] = [np.empty(0)]
    while now_s < duration_s:
        stay_s = min(random.exponential(mean_stays_s[state]), duration_s - now_s)
        pieces.append(now_s + _homogeneous(rates_per_s[state], stay_s, random))
        now_s += max(stay_s, math.ulp(duration_s))
        state = 1 - state
    return np.concatenate(pieces)


def flash_crowd(
    base_per_s: float,
    peak_per_s: float,
    at_s: float,
    rise_s: float,
    hold_s: float,
    fall_s: float,
    duration_s: float,
    *,
    seed: int = 0,
) -> Times:
    """Return arrivals at a base rate that from `at_s` rises to a peak, holds it, and falls back, linearly."""
    corners_s = np.cumsum([at_s, rise_s, hold_s, fall_s])

    def rates(times_s: Times) -> Times:
        return np.interp(times_s, corners_s, [base_per_s, peak_per_s, peak_per_s, base_per_s])

    return _thinned(rates, max(base_per_s, peak_per_s), duration_s, seed)


def load_trace(path: Path, *, most_images: int = 20_000_000) -> Times:
    """Read a CSV file with the columns `time_s,images`: so many images arrive at once at that time.

    Raises:
        SettingsError: the file is unreadable, holds no images or more than `most_images`, or has a line that
            is malformed, negative or before the one above it.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            places = _columns(path, next(lines, []))
            rows = [_row(f"{path}, line {lines.line_num}", line, places) for line in lines if line]
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"{path}: not a CSV file: {error}") from error
    return _spread_out(path, rows, most_images)


def _homogeneous(rate_per_s: float, duration_s: float, random: np.random.Generator) -> Times:
    """The number is Poisson, and given the number the times are uniform."""
    return np.sort(random.uniform(0.0, duration_s, random.poisson(rate_per_s * duration_s)))


def _thinned(rates: Rates, highest_per_s: float, duration_s: float, seed: int) -> Times:
    random = np.random.default_rng(seed)
    times_s = _homogeneous(highest_per_s, duration_s, random)
    return times_s[random.uniform(0.0, highest_per_s, times_s.size) < rates(times_s)]


def _columns(path: Path, names: Iterable[str]) -> tuple[int, int]:
    found = [name.strip() for name in names]
    if any(column not in found for column in TRACE_COLUMNS):
        raise SettingsError(f"{path}: must start with the line {','.join(TRACE_COLUMNS)}, got {found}")
    return found.index(TRACE_COLUMNS[0]), found.index(TRACE_COLUMNS[1])


def _row(where: str, line: Sequence[str], places: tuple[int, int]) -> tuple[float, int]:
    try:
        time_s, images = float(line[places[0]]), int(line[places[1]])
    except (ValueError, IndexError):
        given = ",".join(line)
        raise SettingsError(
            f"{where}: expected a time in seconds and a number of images, got {given}"
        ) from None
    if not 0.0 <= time_s < math.inf or images < 0:
        raise SettingsError(f"{where}: time and images must be 0 or more, got {time_s:g},{images}")
    return time_s, images


def _spread_out(path: Path, rows: Sequence[tuple[float, int]], most_images: int) -> Times:
    for (before_s, _), (time_s, _) in pairwise(rows):
        if time_s < before_s:
            raise SettingsError(f"{path}: time {time_s:g} comes after {before_s:g}; sort the lines by time")
    total = sum(images for _, images in rows)
    if not 0 < total <= most_images:
        allowed = f"1 to {most_images:,} images in lines of time_s,images"
        raise SettingsError(f"{path}: {total:,} images arrive; expected {allowed}")
    times_s, images = zip(*rows, strict=True)
    return np.repeat(np.array(times_s, dtype=np.float64), images)
