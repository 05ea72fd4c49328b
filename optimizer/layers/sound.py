"""Whether the parts of a predictor go together: what was read from a file may have been tampered with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from optimizer.layers.costs import ANY
from optimizer.layers.gaussian import GaussianProcess
from optimizer.layers.predictor import BESIDES, LayerPredictor
from optimizer.layers.view import COLUMNS_OF

_SAID = ("simulated", "device", "engine", "date")


def check_sound(predictor: LayerPredictor) -> None:
    """Raise ValueError for the first thing that does not fit, or is no number."""
    for fault in _faults(predictor):
        raise ValueError(fault)


def _faults(predictor: LayerPredictor) -> Iterator[str]:
    said = predictor.provenance
    if not isinstance(said, Mapping) or any(name not in said for name in _SAID):
        yield f"it does not say its {', '.join(_SAID)}"
    clocks = predictor.clocks_mhz
    if not all(isinstance(clock, int) and clock > 0 for clock in clocks) or list(clocks) != sorted(
        set(clocks)
    ):
        yield f"its clocks are {clocks}"
    if predictor.beside_s.shape != (BESIDES,) or not np.isfinite(predictor.beside_s).all():
        yield f"what runs take beyond their steps is {predictor.beside_s}"
    if ANY not in predictor.processes:
        yield "it has nothing for kinds that were never measured"
    if predictor.power_processes and predictor.power_processes.keys() != predictor.processes.keys():
        yield "it knows the power of some kinds only"
    yield from _of_kinds(predictor, max(1, len(clocks)))


def _of_kinds(predictor: LayerPredictor, clocks: int) -> Iterator[str]:
    for kind, prices in predictor.rooflines.items():
        if prices.ndim != 2 or len(prices) != clocks or not np.isfinite(prices).all():
            yield f"the prices of {kind} are not those of {clocks} clocks"
    for processes in (predictor.processes, predictor.power_processes):
        for kind, process in processes.items():
            if not _fits(process, len(COLUMNS_OF.get(kind, ())), clocks):
                yield f"what was fitted to {kind} does not fit together"


def _fits(process: GaussianProcess, features: int, targets: int) -> bool:
    points = len(process.points)
    shapes = {
        "means": (features,),
        "scales": (features,),
        "slopes": (1 + features, targets),
        "lengths": (features,),
        "points": (points, features),
        "weights": (points, targets),
        "variances": (targets,),
    }
    parts = {name: getattr(process, name) for name in shapes}
    return all(
        parts[name].shape == shape and np.isfinite(parts[name]).all() for name, shape in shapes.items()
    )
