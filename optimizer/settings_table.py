"""Reading TOML strictly: every error names the file and the key, and says what is allowed."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn, TypeGuard

_LARGEST = sys.float_info.max


class SettingsError(ValueError):
    """A settings file cannot be read, or says something that is not allowed."""


class SettingsTable:
    """One table of a TOML file. Values are taken by name; `finish` refuses whatever nobody asked for.

    Args:
        where: the file and, for an inner table, its key; used in messages.
        values: the table as parsed.
    """

    def __init__(self, where: str, values: Mapping[str, object]) -> None:
        self.where = where
        self._values = values
        self._taken: list[str] = []

    @classmethod
    def load(cls, path: Path) -> SettingsTable:
        """Parse a file. Raises SettingsError when it is missing, unreadable or not TOML."""
        try:
            return cls(str(path), tomllib.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise SettingsError(f"{path}: not valid TOML: {error}") from error

    def __contains__(self, key: str) -> bool:
        self._taken.append(key)
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def refuse(self, key: str, allowed: str) -> NoReturn:
        """Raise SettingsError about a key, saying what came and what is allowed."""
        value = self._values.get(key)
        raise SettingsError(f"{self.where}: {key} = {value!r} is not allowed; expected {allowed}")

    def take(self, key: str) -> object:
        """Return a value of any type. Raises SettingsError when the key is missing."""
        if key not in self:
            raise SettingsError(f"{self.where}: {key} is missing")
        return self._values[key]

    def text(self, key: str) -> str:
        """Return a non-empty string."""
        value = self.take(key)
        if not isinstance(value, str) or not value:
            self.refuse(key, "a text in quotes")
        return value

    def number(self, key: str, *, above: float | None = None) -> float:
        """Return a finite number that is not negative, or greater than `above` where given."""
        value = self.take(key)
        if not _is_number(value) or (above is not None and value <= above):
            self.refuse(key, "a number, 0 or more" if above is None else f"a number greater than {above:g}")
        return float(value)

    def numbers(self, key: str, count: int | None = None) -> tuple[float, ...]:
        """Return a non-empty list of numbers, none negative, of the given length where `count` says so."""
        value = self.take(key)
        items: list[object] = value if isinstance(value, list) else []
        numbers = tuple(float(item) for item in items if _is_number(item))
        if not numbers or len(numbers) != (count or len(items)) or len(numbers) != len(items):
            self.refuse(key, f"a list of {count or 'at least 1'} numbers, 0 or more")
        return numbers

    def table(self, key: str) -> SettingsTable:
        """Return an inner table."""
        value = self.take(key)
        if not isinstance(value, dict):
            self.refuse(key, "a table")
        return SettingsTable(f"{self.where}: [{key}]", value)

    def finish(self) -> None:
        """Raise SettingsError when the file gives a key that nobody asked for."""
        unknown = [key for key in self._values if key not in self._taken]
        if unknown:
            allowed = ", ".join(sorted(set(self._taken)))
            raise SettingsError(f"{self.where}: unknown key {unknown[0]!r}; allowed are {allowed}")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LARGEST
