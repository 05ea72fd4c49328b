"""Fitted predictors on disk: arrays and JSON in one NPZ file. No code is in it: any may be opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from optimizer.layers.dataset import DatasetError
from optimizer.layers.doubt import RunDoubt
from optimizer.layers.gaussian import GaussianProcess
from optimizer.layers.predictor import LayerPredictor
from optimizer.layers.sound import check_sound
from optimizer.layers.view import COLUMNS_OF

Array = NDArray[np.float64]
FORMAT = "boulton-predictor-4"
_POWER = "power of "
SHIPPED = Path(__file__).parent / "predictors"
_PARTS = tuple(field.name for field in fields(GaussianProcess) if field.name != "noise")


def shipped_predictors() -> tuple[str, ...]:
    """Return the names of the predictors that come with the package."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.npz")))


def save_predictor(predictor: LayerPredictor, path: Path) -> None:
    """Write a predictor."""
    said = {
        "format": FORMAT,
        "provenance": dict(predictor.provenance),
        "clocks_mhz": predictor.clocks_mhz,
        "beside_s": predictor.beside_s.tolist(),
        "doubt": asdict(predictor.doubt),
        "noise": {name: process.noise for name, process in _processes(predictor).items()},
        "columns": COLUMNS_OF,
    }
    arrays = {
        f"{name}/{part}": _small(part, getattr(process, part))
        for name, process in _processes(predictor).items()
        for part in _PARTS
    }
    arrays |= {f"{kind}/roofline": costs for kind, costs in predictor.rooflines.items()}
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, said=np.array(json.dumps(said)), **arrays)


def _processes(predictor: LayerPredictor) -> dict[str, GaussianProcess]:
    """Return all of them by the names that they have in the file."""
    powers = {_POWER + kind: process for kind, process in predictor.power_processes.items()}
    return {**predictor.processes, **powers}


def _small(part: str, array: Array) -> NDArray[Any]:
    """Points need no more digits than single precision has; weights do."""
    return array.astype(np.float32) if part == "points" else array


def load_predictor(name_or_path: str | Path) -> LayerPredictor:
    """Read a predictor: a shipped one by its name, any other by its path.

    Raises:
        DatasetError: there is none, or the file is something else.
    """
    path = Path(name_or_path)
    if path.suffix != ".npz":
        path = SHIPPED / f"{name_or_path}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            predictor = _read(json.loads(str(file["said"])), dict(file))
        check_sound(predictor)
        return predictor
    except FileNotFoundError as error:
        known = ", ".join(shipped_predictors()) or "none is shipped"
        raise DatasetError(
            f"no predictor {str(name_or_path)!r}; give a .npz file or one of: {known}"
        ) from error
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise DatasetError(f"{path} is not a predictor of format {FORMAT}: {error}") from error


def _read(said: Mapping[str, Any], arrays: Mapping[str, Array]) -> LayerPredictor:
    if said["format"] != FORMAT or said["columns"] != {k: list(v) for k, v in COLUMNS_OF.items()}:
        raise ValueError("it was fitted by another version: fit anew with `boulton calibrate`")
    found = {
        name: GaussianProcess(
            noise=float(noise), **{part: arrays[f"{name}/{part}"].astype(float) for part in _PARTS}
        )
        for name, noise in said["noise"].items()
    }
    kinds = [name for name in found if not name.startswith(_POWER)]
    return LayerPredictor(
        provenance=said["provenance"],
        clocks_mhz=tuple(said["clocks_mhz"]),
        rooflines={kind: arrays[f"{kind}/roofline"].astype(float) for kind in kinds},
        processes={kind: found[kind] for kind in kinds},
        power_processes={kind: found[_POWER + kind] for kind in kinds if _POWER + kind in found},
        beside_s=np.array(said["beside_s"], float),
        doubt=RunDoubt(**said["doubt"]),
    )
