"""Golden-section search of the least value on a range of whole numbers, one measurement at a time."""

from __future__ import annotations

_GOLDEN = 0.6180339887498949


class GoldenSection:
    """Asks for numbers in [low, high] and is told their values, until it has found the least of a valley."""

    def __init__(self, low: int, high: int) -> None:
        self._low, self._high = low, high
        self._values: dict[int, float] = {}

    def ask(self) -> int | None:
        """Return the next number to measure; None when the search has ended."""
        while self._high - self._low > 2:
            step = round(_GOLDEN * (self._high - self._low))
            right = self._low + step
            left = min(self._high - step, right - 1)
            for number in (left, right):
                if number not in self._values:
                    return number
            if self._values[left] <= self._values[right]:
                self._high = right
            else:
                self._low = left
        rest = range(self._low, self._high + 1)
        return next((number for number in rest if number not in self._values), None)

    def tell(self, number: int, value: float) -> None:
        """Report what was measured at a number."""
        self._values[number] = value

    @property
    def best(self) -> int:
        """The number with the least value told so far. Raises ValueError when nothing was told."""
        return min(self._values, key=lambda number: self._values[number])
