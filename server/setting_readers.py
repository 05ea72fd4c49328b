"""How the values of settings are read, from flags and from TOML alike, and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

# From what a flag (text) or a file (any TOML value) gave to the setting. ValueError says what is allowed.
Reader = Callable[[object], Any]


def whole(least: int, most: int | None = None) -> Reader:
    """Read a whole number within limits."""
    allowed = f"a whole number, {_range(least, most)}"

    def read(value: object) -> int:
        try:
            given = int(value) if isinstance(value, str) else value
        except ValueError:
            raise ValueError(allowed) from None
        if not isinstance(given, int) or isinstance(given, bool) or not least <= given <= (most or given):
            raise ValueError(allowed)
        return given

    return read


def number(least: float, *, above: bool = False) -> Reader:
    """Read a finite number of at least `least`, or greater than it."""
    allowed = f"a number {'greater than' if above else 'of at least'} {least:g}"

    def read(value: object) -> float:
        try:
            given = float(value) if isinstance(value, str | int | float) else math.nan
        except (ValueError, OverflowError):
            raise ValueError(allowed) from None
        if isinstance(value, bool) or not least <= given < math.inf or (above and given == least):
            raise ValueError(allowed)
        return given

    return read


def text(value: object) -> str:
    """Read a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError("a text that is not empty")
    return value


def path(value: object) -> Path:
    """Read a path."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("a path")
    try:
        return Path(value).expanduser()
    except RuntimeError:  # ~name of a user whom the machine does not know
        raise ValueError("a path") from None


def switch(value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def one_of(*choices: str) -> Reader:
    """Read one of some words."""

    def read(value: object) -> str:
        if value not in choices:
            raise ValueError("one of " + ", ".join(choices))
        return str(value)

    return read


def names(value: object) -> tuple[str, ...]:
    """Read a list of different names."""
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise ValueError("a list of names")
    if len(set(value)) != len(value):
        raise ValueError("a list of different names")
    return tuple(value)


def ascending(element: Reader) -> Reader:
    """Read a list of ascending values, as text with commas between them or as a list."""
    allowed = "ascending whole numbers, as in 1,8,32"

    def read(value: object) -> tuple[Any, ...]:
        given = value.split(",") if isinstance(value, str) else value
        if not isinstance(given, list) or not given:
            raise ValueError(allowed)
        values = tuple(element(one) for one in given)
        if any(left >= right for left, right in pairwise(values)):
            raise ValueError(allowed)
        return values

    return read


def _range(least: int, most: int | None) -> str:
    return f"{least} or more" if most is None else f"{least} to {most}"
