"""Where results lie, one file a cell, so that a comparison that was interrupted goes on where it stopped.

OUT/cells/NETWORK__PRECISION__ENGINE__bBATCH.json
"""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path

from bench.compare.plan import Cell
from bench.compare.records import Record, as_json, read_record

_SCHEMA = 1


class Store:
    """Reads and writes records below a folder, which is made on the first write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "cells"

    def read(self, cell: Cell, fingerprint: str) -> Record:
        """Return what is known of a cell if it was measured like this; an empty record otherwise.

        A file that is missing, cut short, of another schema or another cell counts as not there.
        """
        try:
            record = read_record(json.loads(self._path(cell).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return Record(cell, fingerprint)
        return (
            record if (record.cell, record.fingerprint) == (cell, fingerprint) else Record(cell, fingerprint)
        )

    def keep(self, record: Record) -> None:
        """Write at once or not at all: an interruption leaves no half result."""
        path = self._path(record.cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(as_json(record)), encoding="utf-8")
        partial.replace(path)

    def _path(self, cell: Cell) -> Path:
        return self._folder / f"{cell.slug}.json"


def fingerprint_of(value: object) -> str:
    """Return a digest of a JSON-able value, the same in every process."""
    text = json.dumps([_SCHEMA, value], sort_keys=True, default=str)
    return sha256(text.encode()).hexdigest()[:16]
