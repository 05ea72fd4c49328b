"""Measured layers: what predictors are fitted to and judged on.

A dataset is a text file. Its first line says where the figures come from, every other one is a network at one
batch size and clock: `{"network", "batch", "clock_mhz", "run_s", "layout_s", "energy_j", "steps"}`, where a
step is `[kind, name, seconds, watts, features...]`. Lines are appended as networks are measured, so that an
interrupted calibration goes on where it stopped, and a line that was cut short is left out. What was measured
in several rounds counts once, with the median of the times: the shortest are those of rare moments.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.layers.features import NAMES, FeatureTable, join
from optimizer.layers.fusion import Kind

Array = NDArray[np.float64]
FORMAT = "boulton-layers-1"


class DatasetError(ValueError):
    """A file that is no dataset, or one of another format; says which and what to do."""


@dataclass(frozen=True, slots=True)
class MeasuredNetwork:
    """One network at one batch size.

    Args:
        network: a name; all batch sizes of one network share it.
        batch: images to a batch.
        table: its steps.
        seconds: of each step.
        watts: mean power while each step runs; None where nothing measured it.
        run_s: a whole batch, from call to return.
        layout_s: what the engine spent on data layouts that no step asked for.
        energy_j: of a whole batch; None where nothing measured it.
        clock_mhz: that it ran at; None where no clock was set.
        rounds: how often it was measured; times are medians, power and energy those of the first round.
    """

    network: str
    batch: int
    table: FeatureTable
    seconds: Array
    watts: Array | None
    run_s: float
    layout_s: float = 0.0
    energy_j: float | None = None
    clock_mhz: int | None = None
    rounds: int = 1


@dataclass(frozen=True, slots=True)
class Rows:
    """The steps of several networks in one table.

    Args:
        table: all steps.
        seconds: of each.
        watts: of each; None where not all of them were measured.
        networks: which network each belongs to.
    """

    table: FeatureTable
    seconds: Array
    watts: Array | None
    networks: NDArray[np.str_]

    def where(self, wanted: NDArray[np.bool_]) -> Rows:
        """Return some of the rows."""
        watts = None if self.watts is None else self.watts[wanted]
        return Rows(self.table.rows(wanted), self.seconds[wanted], watts, self.networks[wanted])


@dataclass(frozen=True, slots=True)
class Dataset:
    """Measurements of one engine on one device.

    Args:
        provenance: what measured it, on what, when and how; `simulated` says whether anything was measured.
        measured: the networks.
    """

    provenance: Mapping[str, Any]
    measured: tuple[MeasuredNetwork, ...]

    @property
    def simulated(self) -> bool:
        """Whether the figures come from a model instead of a machine."""
        return bool(self.provenance["simulated"])

    @property
    def clocks_mhz(self) -> tuple[int, ...]:
        """The clocks that were set, ascending; empty where none was."""
        return tuple(sorted({one.clock_mhz for one in self.measured if one.clock_mhz is not None}))

    def at_clock(self, clock_mhz: int | None) -> Dataset:
        """Return what was measured at one clock."""
        return Dataset(self.provenance, tuple(one for one in self.measured if one.clock_mhz == clock_mhz))

    def only(self, networks: Collection[str]) -> Dataset:
        """Return what was measured of some networks."""
        return Dataset(self.provenance, tuple(one for one in self.measured if one.network in networks))

    def rows(self) -> Rows:
        """Return all steps."""
        watts = [one.watts for one in self.measured if one.watts is not None]
        return Rows(
            join([one.table for one in self.measured]),
            np.concatenate([np.empty(0), *(one.seconds for one in self.measured)]),
            np.concatenate(watts) if watts and len(watts) == len(self.measured) else None,
            np.array([one.network for one in self.measured for _ in one.seconds]),
        )


def write_header(path: Path, provenance: Mapping[str, Any]) -> None:
    """Begin a dataset."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"format": FORMAT, "features": NAMES, **provenance}) + "\n", encoding="utf-8")


def append(path: Path, one: MeasuredNetwork) -> None:
    """Add a network to a dataset that has its header; a line that was cut short before stays alone."""
    line = json.dumps(_as_json(one), allow_nan=False) + "\n"
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        whole = file.read(1) == b"\n"
        file.write(line.encode() if whole else b"\n" + line.encode())


def load_dataset(path: Path) -> Dataset:
    """Read a dataset. Raises `DatasetError`."""
    try:
        header, *lines = path.read_text(encoding="utf-8").split("\n")
        provenance = json.loads(header)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} is not a dataset of layers: {error}") from error
    if not isinstance(provenance, dict) or provenance.pop("format", None) != FORMAT:
        raise DatasetError(
            f"{path} is not a dataset of format {FORMAT}: measure anew with `boulton calibrate`"
        )
    if tuple(provenance.pop("features", ())) != NAMES:
        raise DatasetError(
            f"{path} has other features than this version: measure anew with `boulton calibrate`"
        )
    if "simulated" not in provenance:
        raise DatasetError(f"{path} does not say whether it was measured or simulated")
    return Dataset(provenance, _joined(_networks(path, lines)))


def _joined(measured: Iterable[MeasuredNetwork]) -> tuple[MeasuredNetwork, ...]:
    found: dict[tuple[str, int, int | None], list[MeasuredNetwork]] = {}
    for one in measured:
        found.setdefault((one.network, one.batch, one.clock_mhz), []).append(one)
    return tuple(_middle(rounds) for rounds in found.values())


def _middle(rounds: Sequence[MeasuredNetwork]) -> MeasuredNetwork:
    """Return one network as it was in the middle of its rounds."""
    first = rounds[0]
    if any(one.table.names != first.table.names for one in rounds):
        raise DatasetError(
            f"{first.network} at batch {first.batch} is there twice with other steps: it mixes several "
            "versions; measure anew with `boulton calibrate`"
        )
    return replace(
        first,
        seconds=np.median([one.seconds for one in rounds], axis=0),
        run_s=float(np.median([one.run_s for one in rounds])),
        layout_s=float(np.median([one.layout_s for one in rounds])),
        rounds=len(rounds),
    )


def _as_json(one: MeasuredNetwork) -> dict[str, Any]:
    watts: Sequence[float | None] = [None] * len(one.seconds) if one.watts is None else one.watts.tolist()
    parts = zip(one.table.kinds, one.table.names, one.seconds.tolist(), watts, one.table.values, strict=True)
    return {
        "network": one.network,
        "batch": one.batch,
        "clock_mhz": one.clock_mhz,
        "run_s": one.run_s,
        "layout_s": one.layout_s,
        "energy_j": one.energy_j,
        "steps": [[kind.value, name, s, w, *map(_short, row)] for kind, name, s, w, row in parts],
    }


def _short(value: float) -> float | int:
    return int(value) if value == int(value) else float(value)


def _networks(path: Path, lines: Iterable[str]) -> Iterable[MeasuredNetwork]:
    for number, line in enumerate(lines, start=2):
        try:
            found = _read(json.loads(line))
        except (ValueError, KeyError, TypeError):
            continue  # cut short when a calibration was killed
        figures = (found.batch, found.run_s, *found.seconds, *(() if found.watts is None else found.watts))
        if not all(math.isfinite(figure) and figure > 0 for figure in figures):
            raise DatasetError(
                f"{path}, line {number}: batch, times and watts must be above 0: remove it and measure "
                "anew with `boulton calibrate`"
            )
        yield found


def _read(record: Mapping[str, Any]) -> MeasuredNetwork:
    steps = record["steps"]
    table = FeatureTable(
        tuple(Kind(step[0]) for step in steps),
        tuple(str(step[1]) for step in steps),
        np.array([step[4:] for step in steps], float).reshape(len(steps), len(NAMES)),
    )
    watts = np.array([step[3] for step in steps], float)
    return MeasuredNetwork(
        network=record["network"],
        batch=record["batch"],
        table=table,
        seconds=np.array([step[2] for step in steps], float),
        watts=None if np.isnan(watts).any() else watts,
        run_s=record["run_s"],
        layout_s=record["layout_s"],
        energy_j=record["energy_j"],
        clock_mhz=record.get("clock_mhz"),
    )
