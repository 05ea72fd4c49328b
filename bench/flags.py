"""Reading the values of flags: what argparse calls a type."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return a reader of integers from `low` to `high`."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(f"expected an integer from {low} to {high}, got {text!r}")
        return int(text)

    return read


def number(low: float, high: float, *, zero: bool = False) -> Callable[[str], float]:
    """Return a reader of numbers above `low` and up to `high`; with `zero`, 0 is allowed too."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (low < value <= high or (zero and value == 0.0)) or math.isinf(value):
            least = "0 or more" if zero else f"more than {low:g}"
            raise argparse.ArgumentTypeError(f"expected a number, {least}, at most {high:g}, got {text!r}")
        return value

    return read
