"""A prediction as JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.layers.network import NetworkPrediction
from optimizer.layers.predictor import LayerPredictor

Array = NDArray[np.float64]

_DIGITS = 6
"""That may count; whoever writes and reads them all is done sooner than with seventeen."""


def as_json(prediction: NetworkPrediction, predictor: LayerPredictor, name: str) -> str:
    """Return everything; lists go by batch, then clock. Joules and watts are null where unmeasured."""
    whole = json.dumps(_whole(prediction, predictor, name), allow_nan=False)
    return f'{whole[:-1]}, "layers": [{", ".join(_layers(prediction))}]}}'


def _whole(prediction: NetworkPrediction, predictor: LayerPredictor, name: str) -> dict[str, Any]:
    energy, power = prediction.energy_j, prediction.power_w
    return {
        "network": name,
        "simulated": predictor.simulated,
        "provenance": dict(predictor.provenance),
        "batches": prediction.batches,
        "batches_beyond_what_was_fitted": prediction.beyond,
        "clocks_mhz": prediction.clocks_mhz,
        "run_s": _rounded(prediction.run_s).tolist(),
        "run_spread": _rounded(prediction.spread).tolist(),
        "run_spread_90": _rounded(prediction.tail * prediction.spread).tolist(),
        "power_w": None if power is None else _rounded(power).tolist(),
        "energy_j": None if energy is None else _rounded(energy).tolist(),
        "judged_by_work_and_traffic_alone": prediction.guessed,
    }


def _layers(prediction: NetworkPrediction) -> list[str]:
    """Networks repeat their layers, whose figures then are alike: each is turned into text once."""
    first, written = prediction.bottlenecks(0, -1), dict[bytes, str]()
    seconds = _rounded(prediction.seconds)
    watts = None if prediction.watts is None else _rounded(prediction.watts)

    def text(figures: Array) -> str:
        key = figures.tobytes()
        if key not in written:
            written[key] = json.dumps(figures.tolist(), allow_nan=False)
        return written[key]

    found = []
    for place, step in enumerate(prediction.steps):
        said = {
            "name": step.name,
            "operators": step.operators,
            "kind": step.kind.value,
            "bottleneck": place in first,
        }
        each_s = text(seconds[:, :, place])
        each_w = "null" if watts is None else text(watts[:, :, place])
        found.append(f'{json.dumps(said)[:-1]}, "seconds": {each_s}, "watts": {each_w}}}')
    return found


def _rounded(values: Array) -> Array:
    """Round to the digits that may count."""
    scale = 10.0 ** (_DIGITS - 1 - np.floor(np.log10(np.maximum(np.abs(values), 1e-300))))
    answer: Array = np.round(values * scale) / scale
    return answer
