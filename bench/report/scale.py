"""From values to places on a drawing, and the round values that an axis is marked with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_MOST_MARKS = 7


@dataclass(frozen=True, slots=True)
class Scale:
    """A range of values laid over a range of pixels.

    Args:
        low: value at `begin`.
        high: value at `end`; above `low`.
        begin: pixels.
        end: pixels; below `begin` for an axis that points upwards.
        log: whether equal ratios are equally far apart; both values are positive then.
    """

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """Return the pixels of a value."""
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.begin + (at - low) / (high - low) * (self.end - self.begin)

    def marks(self) -> tuple[float, ...]:
        """Return round values within the range, ascending."""
        return _log_marks(self.low, self.high) if self.log else _even_marks(self.low, self.high)


def scale_of(
    values: Iterable[float], begin: float, end: float, *, log: bool, from_zero: bool = True
) -> Scale:
    """Return a scale that holds all values with a little room.

    Args:
        values: any; what the scale cannot show is left out.
        begin: pixels of the lowest.
        end: pixels of the highest.
        log: equal ratios equally far apart.
        from_zero: without `log`, begin at 0 or below.
    """
    known = [value for value in values if math.isfinite(value) and (value > 0 or not log)] or [1.0]
    low, high = min(known), max(known)
    if log:
        room = max(1.08, (high / low) ** 0.06)
        return Scale(low / room, high * room, begin, end, log=True)
    if from_zero:
        low = min(0.0, low)
    room = 0.06 * (high - low) or 0.01 * abs(high) or 1.0
    return Scale(low if from_zero else low - room, high + room, begin, end)


def _even_marks(low: float, high: float) -> tuple[float, ...]:
    rough = (high - low) / _MOST_MARKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.ceil(low / step - 1e-9)
    return tuple(step * index for index in range(first, math.floor(high / step + 1e-9) + 1))


def _log_marks(low: float, high: float) -> tuple[float, ...]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks: tuple[float, ...] = ()
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        found = tuple(f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high)
        if marks and len(found) > _MOST_MARKS:
            break
        marks = found
    return marks if len(marks) > 1 else _even_marks(low, high)
