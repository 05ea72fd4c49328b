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
        energy_over_best: its energy over that of the most economical device for the same network.
    """

    candidate: Candidate
    ratio: float
    pareto: bool
    excluded: bool
    energy_over_best: float


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
            energy_over_best=one.energy_per_image_j
            / min(o.energy_per_image_j for o in candidates if o.network == one.network),
        )
        for one in candidates
    ]
    return tuple(sorted(ranked, key=lambda one: (one.excluded, one.ratio)))


def _beats(other: Candidate, one: Candidate) -> bool:
    """Whether `other` is at least as good in both and better in one."""
    no_worse = other.error <= one.error and other.energy_per_image_j <= one.energy_per_image_j
    return no_worse and (other.error, other.energy_per_image_j) != (one.error, one.energy_per_image_j)
