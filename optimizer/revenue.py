"""What an interval earned, or a setting is predicted to earn. One function scores both: `score`.

Higher is better in every form. The form `profit`, in currency over an interval:

    price_per_1000_images / 1000 * images in time
    - late_penalty_per_1000_images / 1000 * images late
    - kWh * (energy_price_per_kwh + grid_g_per_kwh / 1000 * carbon_price_per_kg)

Late is whatever was answered after the SLO, refused or expired. What a client withdrew, and what an engine
failed on, earns nothing and costs nothing.

The other forms know no prices. E is joules per image in time, T the typical latency of an image in seconds
(of a window the median, of a prediction and of a whole rehearsal the mean):

    energy  -E                                              in J; minimum energy under the SLO
    edp     -E * T                                          in J s; the energy-delay product
    ed2p    -E * T**2                                       in J s2
    zeus    -(zeus_eta * E + (1 - zeus_eta) * zeus_max_power_w * T)   in J

The last is the cost of Zeus (You, Chung, Chowdhury, NSDI 2023), there of a training run, here of an image.
All four are meant under the SLO: once more than one image in a hundred is late, `BROKEN_SLO` times one plus
the share too many is taken off, which is more than any energy. An interval that answered less than one image
in time counts as one with one image. Being averages, these scores must not be added up over intervals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from optimizer.targets import FORMS, Targets, load_targets
from optimizer.telemetry import Traffic, Window

__all__ = [
    "FORMS",
    "Outcome",
    "Revenue",
    "Score",
    "Targets",
    "late_images",
    "load_targets",
    "profit",
    "score",
    "window_outcome",
    "window_revenue",
]

FORM_UNITS = {"energy": "J", "edp": "J s", "ed2p": "J s2", "zeus": "J"}
"""Of the forms that score the average image; `profit` is in currency over an interval."""
LATE_SHARE_ALLOWED = 0.01
BROKEN_SLO = 1e6

Amount = TypeVar("Amount", float, NDArray[np.float64])
"""One number, or an array with one number a setting. All arithmetic here is elementwise."""


@dataclass(frozen=True)  # slots: a generic class with them cannot be made through an alias such as `Revenue`
class Outcome(Generic[Amount]):
    """What happened in an interval, or is predicted to happen in one of `duration_s` seconds.

    Args:
        duration_s: length of the interval.
        in_time: images answered within the SLO.
        late: images answered later, refused or expired.
        joules: energy used, idle included; None when not measured.
        latency_ms: typical (median or mean) latency of an image; only `edp`, `ed2p` and `zeus` look at it.
    """

    duration_s: float
    in_time: Amount
    late: Amount
    joules: Amount | None
    latency_ms: Amount


@dataclass(frozen=True)
class Score(Generic[Amount]):
    """What an interval earned, in currency or, but for `profit`, in the unit of the form.

    Args:
        income: earned by images in time.
        penalty: lost to lateness.
        energy_cost: lost to energy; None, and missing in `total`, when it was not measured.
        form: which form this is.
    """

    income: Amount
    penalty: Amount
    energy_cost: Amount | None
    form: str = "profit"

    @property
    def excludes_energy(self) -> bool:
        """Whether the total says nothing about energy, because nothing measured it."""
        return self.energy_cost is None

    @property
    def total(self) -> Amount:
        """Income less penalty and, where measured, the cost of energy."""
        gross = self.income - self.penalty
        return gross if self.energy_cost is None else gross - self.energy_cost


Revenue: TypeAlias = Score[float]


def score(targets: Targets, outcome: Outcome[Amount]) -> Score[Amount]:
    """Return what an outcome is worth under the targets, by their form; see the module for the formulas."""
    return _SCORES[targets.form](targets, outcome)


def profit(targets: Targets, in_time: Amount, late: Amount, joules: Amount | None) -> Score[Amount]:
    """Score images in time, images late and the energy used in currency, whatever the form of the targets."""
    return Score(
        income=targets.price_per_1000_images / 1000.0 * in_time,
        penalty=targets.late_penalty_per_1000_images / 1000.0 * late,
        energy_cost=None if joules is None else targets.price_per_joule * joules,
    )


def _profit(targets: Targets, outcome: Outcome[Amount]) -> Score[Amount]:
    return profit(targets, outcome.in_time, outcome.late, outcome.joules)


def _energy(targets: Targets, outcome: Outcome[Amount]) -> Score[Amount]:
    return _average(targets, outcome, 0.0, 1.0)


def _edp(targets: Targets, outcome: Outcome[Amount]) -> Score[Amount]:
    return _average(targets, outcome, 0.0, outcome.latency_ms / 1e3)


def _ed2p(targets: Targets, outcome: Outcome[Amount]) -> Score[Amount]:
    delay_s = outcome.latency_ms / 1e3
    return _average(targets, outcome, 0.0, delay_s * delay_s)


def _zeus(targets: Targets, outcome: Outcome[Amount]) -> Score[Amount]:
    eta = targets.zeus_eta
    time_cost = (1.0 - eta) * targets.zeus_max_power_w * (outcome.latency_ms / 1e3)
    return _average(targets, outcome, time_cost, eta)


def _average(
    targets: Targets, outcome: Outcome[Amount], time_cost: Amount | float, per_joule: Amount | float
) -> Score[Amount]:
    """Score the average image: its energy, weighted, and its time."""
    joules = outcome.joules
    images = np.maximum(outcome.in_time, 1.0)
    return Score(
        income=0.0 * outcome.in_time,
        penalty=time_cost + _broken_slo(outcome.in_time, outcome.late),
        energy_cost=None if joules is None else joules / images * per_joule,
        form=targets.form,
    )


def _broken_slo(in_time: Amount, late: Amount) -> Amount:
    """Return what takes precedence over everything: a step where the SLO breaks, then a slope."""
    share = late / np.maximum(in_time + late, 1e-9)
    excess = np.maximum(share - LATE_SHARE_ALLOWED, 0.0)
    return BROKEN_SLO * (np.sign(excess) + excess)  # type: ignore[no-any-return]  # float in, float out


_SCORES: dict[str, Callable[..., Score]] = {  # type: ignore[type-arg]  # of floats or of arrays, as asked
    "profit": _profit,
    "energy": _energy,
    "edp": _edp,
    "ed2p": _ed2p,
    "zeus": _zeus,
}


def weighs_latency(targets: Targets) -> bool:
    """Whether the form of the targets looks at `Outcome.latency_ms`."""
    return targets.form in ("edp", "ed2p", "zeus")


def most_revenue(targets: Targets, duration_s: float, images: float) -> float:
    """Return what so many images earn at most: all in time, at once, and for no energy."""
    return float(score(targets, Outcome(duration_s, images, 0.0, 0.0, 0.0)).total)


def late_images(traffic: Traffic) -> int:
    """Images that count as late: answered after the SLO, refused, or expired while queued."""
    return traffic.late + traffic.refused + traffic.expired


def settled_images(traffic: Traffic) -> int:
    """Return the images that were dealt with in a window: answered, refused or expired."""
    return traffic.completed + traffic.refused + traffic.expired


def window_outcome(window: Window) -> Outcome[float]:
    """Return what one window measured. Energy counts as the device reported it, idle included."""
    traffic = window.traffic
    return Outcome(
        duration_s=window.duration_s,
        in_time=float(max(0, traffic.completed - traffic.late)),
        late=float(late_images(traffic)),
        joules=window.device.energy.joules,
        latency_ms=traffic.latency_p50_ms or 0.0,
    )


def window_revenue(targets: Targets, window: Window) -> Revenue:
    """Score what one window measured."""
    return score(targets, window_outcome(window))
