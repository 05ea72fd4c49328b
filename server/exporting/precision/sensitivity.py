"""How much each node's quantisation, alone, moves the network's answers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from server.engines.engine import Array
from server.exporting.candidate import Runner
from server.exporting.dynamic_batch import in_chunks
from server.exporting.precision.fidelity import answers
from server.exporting.precision.quantiser import Quantiser
from server.exporting.sessions import runner_of


def sensitivities(quantiser: Quantiser, images: Array, batch: int | None) -> Mapping[str, float]:
    """Return, for every node that can be in INT8, the relative distance of the answers when only it is.

    What a node's error does to the answers cannot be read off the node: an early error passes through all
    that follows, a late one may drown in a residual sum. So each node is tried: a run of the network each.

    Args:
        quantiser: the calibrated graph.
        images: float32 `[n, ...]`, as the network takes them; a few suffice.
        batch: items that the graph takes at once; None: any number.
    """
    meant = _flat(runner(quantiser, batch), images)
    return {name: _distance(_flat(_only(quantiser, name, batch), images), meant) for name in quantiser.nodes}


def runner(quantiser: Quantiser, batch: int | None, without: tuple[str, ...] | None = None) -> Runner:
    """Return what runs the graph in float32, or in INT8 with the nodes in `without` kept in float32."""
    run = runner_of(quantiser.model if without is None else quantiser.quantised(without))
    return run if batch is None else in_chunks(run, batch)


def _only(quantiser: Quantiser, name: str, batch: int | None) -> Runner:
    return runner(quantiser, batch, tuple(other for other in quantiser.nodes if other != name))


def _flat(run: Runner, images: Array) -> NDArray[np.float64]:
    return np.concatenate([out.astype(np.float64).ravel() for out in answers(run, (images,))])


def _distance(got: NDArray[np.float64], meant: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(got - meant) / max(float(np.linalg.norm(meant)), 1e-30))
