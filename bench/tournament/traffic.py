"""The six kinds of traffic. Rates are shares of a cell's capacity; times are shares of the duration.

steady-low    Poisson at 0.15
steady-high   Poisson at 0.70
diurnal       Poisson between 0.05 and 0.75 and back, a day in one duration, least at its ends
bursty        Markov-modulated Poisson: 0.15 for 6 s on average, 0.75 for 2 s on average, in turns
step-x10      Poisson at 0.07, from the middle on at 0.70
flash-crowd   Poisson at 0.10; at 0.4 it rises within 5 s to 0.75, stays for 0.15, falls back within 20 s
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from optimizer.twin import arrivals

Times = NDArray[np.float64]
Maker = Callable[[float, float, int], Times]


def _steady_low(capacity: float, duration_s: float, seed: int) -> Times:
    return arrivals.poisson(0.15 * capacity, duration_s, seed=seed)


def _steady_high(capacity: float, duration_s: float, seed: int) -> Times:
    return arrivals.poisson(0.70 * capacity, duration_s, seed=seed)


def _diurnal(capacity: float, duration_s: float, seed: int) -> Times:
    return arrivals.diurnal(0.40 * capacity, 0.35 / 0.40, duration_s, duration_s, seed=seed)


def _bursty(capacity: float, duration_s: float, seed: int) -> Times:
    return arrivals.mmpp((0.15 * capacity, 0.75 * capacity), (6.0, 2.0), duration_s, seed=seed)


def _step(capacity: float, duration_s: float, seed: int) -> Times:
    half_s = duration_s / 2.0
    return arrivals.steps([(half_s, 0.07 * capacity), (half_s, 0.70 * capacity)], seed=seed)


def _flash_crowd(capacity: float, duration_s: float, seed: int) -> Times:
    return arrivals.flash_crowd(
        0.10 * capacity,
        0.75 * capacity,
        at_s=0.4 * duration_s,
        rise_s=min(5.0, 0.1 * duration_s),
        hold_s=0.15 * duration_s,
        fall_s=min(20.0, 0.2 * duration_s),
        duration_s=duration_s,
        seed=seed,
    )


_KINDS: dict[str, tuple[Maker, float]] = {
    "steady-low": (_steady_low, 0.15),
    "steady-high": (_steady_high, 0.70),
    "diurnal": (_diurnal, 0.75),
    "bursty": (_bursty, 0.75),
    "step-x10": (_step, 0.70),
    "flash-crowd": (_flash_crowd, 0.75),
}


def arrivals_of(traffic: str, capacity: float, duration_s: float, seed: int) -> Times:
    """Return arrival times in seconds, ascending. Raises KeyError for an unknown kind of traffic."""
    return _KINDS[traffic][0](capacity, duration_s, seed)


def peak_rate(traffic: str, capacity: float) -> float:
    """Return the highest rate that the traffic comes to, in images a second."""
    return _KINDS[traffic][1] * capacity
