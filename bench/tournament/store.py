"""Where finished results lie, so that a tournament that was interrupted goes on where it stopped.

OUT/cells/GPU__MODEL__TRAFFIC__SLO/ground.json    the cell's prices and fixed settings
POLICY.json    one policy's run
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from bench.tournament.plan import Cell
from bench.tournament.results import SIMULATED, Ground, Played, as_json

T = TypeVar("T", Ground, Played)
_GROUND = "ground"
_SCHEMA = 1


class Store:
    """Reads and writes results below a folder, which is made on the first write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "cells"

    def ground(self, cell: Cell, fingerprint: str) -> Ground | None:
        """Return the cell's ground if it was made under these settings."""
        return _usable(self._path(cell, _GROUND), fingerprint, Ground.read)

    def played(self, cell: Cell, policy: str, fingerprint: str) -> Played | None:
        """Return what the policy did in the cell, if it was under these settings."""
        return _usable(self._path(cell, policy), fingerprint, Played.read)

    def keep_ground(self, ground: Ground) -> None:
        """Write a cell's ground."""
        _write(self._path(ground.cell, _GROUND), as_json(ground))

    def keep_played(self, played: Played) -> None:
        """Write what a policy did."""
        _write(self._path(played.cell, played.policy), as_json(played))

    def drop(self, cell: Cell, policy: str) -> None:
        """Forget what a policy did in a cell."""
        self._path(cell, policy).unlink(missing_ok=True)

    def _path(self, cell: Cell, name: str) -> Path:
        return self._folder / cell.slug / f"{name}.json"


def fingerprint_of(value: object) -> str:
    """Return a digest of a JSON-able value, the same in every process."""
    text = json.dumps([_SCHEMA, value], sort_keys=True, default=str)
    return sha256(text.encode()).hexdigest()[:16]


def _usable(path: Path, fingerprint: str, read: Callable[[dict[str, Any]], T]) -> T | None:
    """A file that is missing, cut short, of another schema or of other settings counts as not there."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if table.pop("source") != SIMULATED or table["fingerprint"] != fingerprint:
            return None
        return read(table)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(path: Path, table: dict[str, Any]) -> None:
    """Write at once or not at all: an interruption leaves no half result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps({"source": SIMULATED, **table}), encoding="utf-8")
    partial.replace(path)
