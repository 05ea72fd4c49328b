"""Remembering which setting won a search, across processes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np

import optimizer
from bench.simulate.scenario import Scenario
from optimizer.operating_point import OperatingPoint


class Memory:
    """A file for each scenario that was searched. What cannot be read is searched again.

    Args:
        folder: made when something is remembered.
        scenario: what is searched; with other code it is another search.
    """

    def __init__(self, folder: Path, scenario: Scenario) -> None:
        self._path = folder / f"{_digest(scenario)}.json"

    def recall(self) -> OperatingPoint | None:
        """Return the winner of an earlier search; None when there was none."""
        try:
            return OperatingPoint(*json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def remember(self, point: OperatingPoint) -> None:
        """Keep a winner. A folder that cannot be written is no reason to fail."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(astuple(point)), encoding="utf-8")
        except OSError:
            return


def _digest(scenario: Scenario) -> str:
    """Everything that the search depends on, the code included."""
    model = scenario.profile.model(scenario.model)
    bare = replace(
        scenario, profile=replace(scenario.profile, models={scenario.model: model}), arrivals_s=np.empty(0)
    )
    code = hashlib.sha256(repr(bare).encode())
    code.update(scenario.arrivals_s.tobytes())
    for folder in (*map(Path, optimizer.__path__), Path(__file__).parent):
        for path in sorted([*folder.glob("*.py"), *folder.glob("twin/*.py")]):
            code.update(path.read_bytes())
    return code.hexdigest()
