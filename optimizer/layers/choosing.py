"""Which network to deploy where: NeuralPower's energy-precision ratio, limits, and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network on a device.

    Args:
        network: its name.
        device: its name.
        error: share of wrong answers, above 0 and up to 1.
        energy_per_image_j: predicted or measured.
        run_s: of a batch.
    """

    network: str
    device: str
    error: float
    energy_per_image_j: float
    run_s: float

    def ratio(self, alpha: float) -> float:
        """Return the energy-precision ratio Error^alpha * energy per image; lower is better."""
        return float(self.error**alpha * self.energy_per_image_j)


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate, judged.

    Args:
        candidate: itself.
        ratio: the energy-precision ratio.
        pareto: no other candidate within the limit has both less error and less energy.
        excluded: its batches take longer than the limit.
        energy_over_best: its energy over that of the most economical device within the limit for the same
            network; None where no device is within it.
    """

    candidate: Candidate
    ratio: float
    pareto: bool
    excluded: bool
    energy_over_best: float | None


@dataclass(frozen=True, slots=True)
class Fit:
    """How devices suit one network, judged by energy alone: its error is the same on all of them.

    Args:
        network: its name.
        within: where its batches keep to the limit, the most economical device first.
        too_slow: where they do not, the fastest first.
    """

    network: str
    within: tuple[Ranked, ...]
    too_slow: tuple[Ranked, ...]


def rank(candidates: Sequence[Candidate], alpha: float, slo_s: float | None = None) -> tuple[Ranked, ...]:
    """Order candidates by their ratio, those that the limit excludes last.

    Raises:
        ValueError: an error is not above 0 and up to 1, or alpha is negative.
    """
    if alpha < 0.0:
        raise ValueError(f"alpha must be 0 (energy alone) or more, got {alpha}")
    for one in candidates:
        if not 0.0 < one.error <= 1.0:
            raise ValueError(f"the error of {one.network} must be above 0 and up to 1, got {one.error}")
    allowed = [one for one in candidates if slo_s is None or one.run_s <= slo_s]
    ranked = [
        Ranked(
            candidate=one,
            ratio=one.ratio(alpha),
            pareto=one in allowed and not any(_beats(other, one) for other in allowed),
            excluded=one not in allowed,
            energy_over_best=_over_best(one, [o for o in allowed if o.network == one.network]),
        )
        for one in candidates
    ]
    return tuple(sorted(ranked, key=lambda one: (one.excluded, one.ratio)))


def fits(ranked: Sequence[Ranked]) -> tuple[Fit, ...]:
    """Return how devices suit each network, networks in the order of their best ratio."""
    return tuple(
        _fit(network, [one for one in ranked if one.candidate.network == network])
        for network in dict.fromkeys(one.candidate.network for one in ranked)
    )


def _fit(network: str, own: Sequence[Ranked]) -> Fit:
    within = (one for one in own if not one.excluded)
    too_slow = (one for one in own if one.excluded)
    return Fit(
        network,
        tuple(sorted(within, key=lambda one: one.candidate.energy_per_image_j)),
        tuple(sorted(too_slow, key=lambda one: one.candidate.run_s)),
    )


def _over_best(one: Candidate, allowed: Sequence[Candidate]) -> float | None:
    least_j = min((other.energy_per_image_j for other in allowed), default=None)
    return None if least_j is None else one.energy_per_image_j / least_j


def _beats(other: Candidate, one: Candidate) -> bool:
    """Whether `other` is at least as good in both and better in one."""
    no_worse = other.error <= one.error and other.energy_per_image_j <= one.energy_per_image_j
    return no_worse and (other.error, other.energy_per_image_j) != (one.error, one.energy_per_image_j)
