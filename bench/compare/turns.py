"""In which order the cells are measured: each turn begins elsewhere, and every other turn runs backwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def order(cells: Sequence[T], turn: int) -> tuple[T, ...]:
    """Return the cells in the order of a turn, counted from 0.

    What drifts with time (temperature, neighbours) then falls on every cell alike, and no cell always follows
    the same other one. The beginnings are spread over the cells, since there are fewer turns than cells.
    """
    if not cells:
        return ()
    begin = _spread(turn, len(cells))
    turned = (*cells[begin:], *cells[:begin])
    return turned if turn % 2 == 0 else (turned[0], *turned[:0:-1])


def _spread(turn: int, count: int) -> int:
    """The golden section's multiples never come together and never leave a gap."""
    return int(turn * 0.6180339887498949 % 1.0 * count)
