"""The price of an image in a cell: such that energy matters.

If images paid a hundred times their energy, every policy that is in time would earn nearly the same, and a
revenue ratio would say nothing. So the price is set, cell by cell, to where energy costs two fifths of the
income at the best fixed setting; a late image costs as much as one in time earns. The best setting depends on
the price, so both are found in turns, each from the other, until the share stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.tournament.results import Fixed

ENERGY_SHARE = 0.4
TOLERANCE = 0.01
MOST_TURNS = 6


@dataclass(frozen=True, slots=True)
class Priced:
    """A price with the best fixed setting under it, and the share of its income that energy costs."""

    price_per_1000_images: float
    best: Fixed
    energy_share: float


def find_price(first: Fixed, best_under: Callable[[float], Fixed]) -> Priced:
    """Find the price.

    Args:
        first: any setting that answers images; its energy makes the first price.
        best_under: the best fixed setting under a price.

    Raises ValueError when nothing was answered in time at all: no price makes that pay.
    """
    tried = [_priced(best_under, price_for(first))]
    while abs(tried[-1].energy_share - ENERGY_SHARE) > TOLERANCE and len(tried) < MOST_TURNS:
        tried.append(_priced(best_under, price_for(tried[-1].best)))
    return min(tried, key=lambda priced: abs(priced.energy_share - ENERGY_SHARE))


def price_for(fixed: Fixed) -> float:
    """Return the price of 1000 images at which this setting's energy costs the wanted share of its income."""
    in_time = fixed.score.images_in_time
    if in_time <= 0:
        raise ValueError(f"{fixed.point} answers nothing in time: no price can be set")
    return fixed.score.energy_cost / ENERGY_SHARE / in_time * 1000.0


def _priced(best_under: Callable[[float], Fixed], price: float) -> Priced:
    best = best_under(price)
    income = best.score.income
    return Priced(price, best, best.score.energy_cost / income if income > 0.0 else float("inf"))
