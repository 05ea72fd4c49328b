"""The paper's question, and Joule Point's claim: what the best fixed setting, or one cap, brings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.tournament import judging
from bench.tournament.figures import mean
from bench.tournament.plan import Cell
from bench.tournament.results import Ground

CLAIM = 0.01
"""Joule Point found one cap within 0.4 to 0.9 % of every network's optimum; beyond 1 % the claim is off."""


@dataclass(frozen=True, slots=True)
class Question:
    """How much the best fixed setting brings over the default one: a GPU, a network, a form, a traffic."""

    cell: Cell
    form: str
    best: str
    default_score: float
    best_score: float
    gain: float | None


@dataclass(frozen=True, slots=True)
class ByForm:
    """The paper's question in short: the gain of the best fixed setting over the default, over cells."""

    form: str
    traffic: str
    cells: int
    gain: float | None
    lowest: float | None
    highest: float | None


@dataclass(frozen=True, slots=True)
class ByTraffic:
    """The card's one static cap under one traffic, against the best fixed setting: means over cells.

    `shortfall` is the revenue missed over the oracle's, `excess` the joules per image over the oracle's,
    less 1; `late_share` of the cap. `holds`: whether both differences are within a percent.
    """

    traffic: str
    cells: int
    shortfall: float | None
    shortfall_highest: float | None
    excess: float | None
    late_share: float | None
    holds: bool | None


def questions_of(grounds: Sequence[Ground]) -> Iterator[Question]:
    """Ask of each cell, in each form of revenue, what its best fixed setting brings over the default."""
    for ground in grounds:
        for form, answer in ground.forms.items():
            yield Question(ground.cell, form, str(answer.point), answer.default, answer.best, answer.gain)


def by_form(questions: Sequence[Question]) -> Iterator[ByForm]:
    """Yield the answers in short, by form and traffic."""
    for form, traffic in dict.fromkeys((question.form, question.cell.traffic) for question in questions):
        gains = [
            question.gain
            for question in questions
            if (question.form, question.cell.traffic) == (form, traffic) and question.gain is not None
        ]
        yield ByForm(
            form, traffic, len(gains), mean(gains), min(gains, default=None), max(gains, default=None)
        )


def by_traffic(grounds: Sequence[Ground]) -> Iterator[ByTraffic]:
    """Yield what each card's one cap misses under each traffic."""
    for traffic in dict.fromkeys(ground.cell.traffic for ground in grounds):
        own = [ground for ground in grounds if ground.cell.traffic == traffic]
        ratios = [
            ratio
            for ground in own
            if (ratio := judging.revenue_ratio(ground, ground.one_cap.score)) is not None
        ]
        savings = [
            saving
            for ground in own
            if (saving := judging.energy_saving(ground.one_cap.score, ground.oracle.score)) is not None
        ]
        ratio, saving = mean(ratios), mean(savings)
        shortfall = None if ratio is None else 1.0 - ratio
        excess = None if saving is None else -saving
        holds = None if shortfall is None or excess is None else max(shortfall, excess) <= CLAIM
        late = mean([ground.one_cap.score.late_share for ground in own])
        highest = max((1.0 - ratio for ratio in ratios), default=None)
        yield ByTraffic(traffic, len(own), shortfall, highest, excess, late, holds)
