"""Published figures, and what comes out of the data here, under several ways to clean them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench.study.findings import Exchange, exchange
from bench.study.quality import clean
from bench.study.runs import Run, by_cell, measure_of

USED = "failed and far-out runs left out (used here)"


@dataclass(frozen=True, slots=True)
class Claim:
    """A published saving, of `cheap` in place of `dear`; at most `within` away it is called reproduced."""

    source: str
    gpu: str
    dear: str
    cheap: str
    saving: float
    within: float


@dataclass(frozen=True, slots=True)
class Reproduced:
    """A claim beside what was found, as used and under other ways to clean; each in shares."""

    claim: Claim
    found: Exchange
    others: tuple[tuple[str, float], ...]

    @property
    def held(self) -> bool:
        """Whether the difference is within what the claim allows."""
        return abs(self.found.saving.share - self.claim.saving) <= self.claim.within


PUBLISHED = (
    Claim("del Rey et al., SEAA 2023", "RTX 3070", "vgg16", "mobilenet_v2", saving=0.8138, within=0.001),
)


def reproduce(runs: Sequence[Run], kept: Sequence[Run], least_f1: float) -> tuple[Reproduced, ...]:
    """Look up the published figures that these runs can tell.

    Args:
        runs: all.
        kept: those that are compared.
        least_f1: below it a training has failed.
    """
    ways = {
        "nothing left out": runs,
        "failed runs left out": clean(runs, least_f1, fence=float("inf")).kept,
        "the first runs of each cell, as many as most cells have": _first(runs),
    }
    found = []
    for claim in PUBLISHED:
        own = _tell(claim, kept)
        others = [(name, told.saving.share) for name, way in ways.items() if (told := _tell(claim, way))]
        if own is not None:
            found.append(Reproduced(claim, own, tuple(others)))
    return tuple(found)


def _tell(claim: Claim, runs: Sequence[Run]) -> Exchange | None:
    return exchange(runs, claim.gpu, claim.dear, claim.cheap, measure_of(runs))


def _first(runs: Sequence[Run]) -> tuple[Run, ...]:
    cells = by_cell(runs)
    usual = Counter(len(own) for own in cells.values()).most_common(1)[0][0]
    return tuple(run for own in cells.values() for run in own[:usual])
