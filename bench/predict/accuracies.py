"""How accurate networks are, from a table that somebody wrote."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from server.errors import ConfigError

COLUMNS = ("network", "accuracy")
_MOST_LETTERS = 1 << 20


def read_accuracies(path: Path) -> dict[str, float]:
    """Return each network's share of right answers.

    Args:
        path: CSV in UTF-8 with the columns network,accuracy; accuracies as in 0.7615 or 76.15%.

    Raises:
        ConfigError: it is no such file, an accuracy is none, or a network is in it twice.
    """
    found: dict[str, float] = {}
    for number, row in enumerate(_rows(path), start=1):
        name, accuracy = row["network"], _share(path, number, row)
        if name in found:
            raise ConfigError(f"--accuracies {path} has {name} twice: keep one of the lines")
        found[name] = accuracy
    return found


def _rows(path: Path) -> Iterator[Mapping[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets put a mark before the text
            text = file.read(_MOST_LETTERS + 1)
            if len(text) > _MOST_LETTERS:
                raise ConfigError(
                    f"--accuracies {path} is no table: it is longer than {_MOST_LETTERS} letters"
                )
            lines = csv.reader(io.StringIO(text, newline=""))
            names = [name.strip() for name in next(lines, [])]
            if missing := [name for name in COLUMNS if name not in names]:
                has = f"it has {', '.join(names)}" if names else "it is empty"
                raise ConfigError(f"--accuracies {path} has no column {' and no '.join(missing)}: {has}")
            yield from (
                dict(zip(names, (*(cell.strip() for cell in line), *[""] * len(names)), strict=False))
                for line in lines
                if line
            )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"--accuracies {path} cannot be read as CSV: {error}") from error


def _share(path: Path, number: int, row: Mapping[str, str]) -> float:
    text = row["accuracy"]
    try:
        share = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise ConfigError(
            f"--accuracies {path}, row {number}: the accuracy of {row['network']} is {text!r}; it must be a "
            "share such as 0.7615, or 76.15%"
        )
    return share
