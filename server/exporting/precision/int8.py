"""INT8 for as much of the network as bears it."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import ModelProto

from server.engines.engine import Array
from server.exporting.precision.fidelity import answers, fidelity_of
from server.exporting.precision.kept import Kept
from server.exporting.precision.quantiser import Quantiser, calibrated
from server.exporting.precision.sensitivity import runner, sensitivities
from server.exporting.progress import Progress

_PROBES = 6
_LARGEST_SHARE_KEPT = 0.25  # beyond a quarter of the nodes there is little left to gain from INT8


def to_int8(
    model: ModelProto, images: Array, batch: int | None, least_agreement: float, progress: Progress
) -> tuple[ModelProto, tuple[Kept, ...]]:
    """Return an INT8 copy of a float32 graph, and the nodes that stay in float32.

    All convolutions and matrix products are quantised first. Where the answers on the calibration images then
    differ too often, the nodes that cost most go back to float32: one, two, four, up to a quarter of them.

    Args:
        model: a float32 graph with one input.
        images: float32 `[n, ...]` to calibrate on, as the network takes them.
        batch: items that the graph takes at once; None: any number.
        least_agreement: what will be asked for on other pictures; half of that disagreement is allowed here.
        progress: told about each long step.

    Raises:
        ExportError: the graph cannot be quantised.
    """
    with progress.step(f"calibrating on {len(images)} views of pictures"):
        quantiser = calibrated(model, images, batch)
        meant = answers(runner(quantiser, batch), (images,))
    worst: list[tuple[str, float]] = []
    tried: list[tuple[float, int]] = []
    for count in _counts(len(quantiser.nodes)):
        if count == 1:
            worst = _most_sensitive(quantiser, images, batch, progress)
        without = tuple(name for name, _ in worst[:count])
        with progress.step(f"quantising {len(quantiser.nodes) - count} of {len(quantiser.nodes)} nodes"):
            agreement = fidelity_of(answers(runner(quantiser, batch, without), (images,)), meant).agreement
        tried.append((agreement, -count))
        if agreement >= (1 + least_agreement) / 2:
            break
    kept = worst[: -max(tried)[1]]
    return quantiser.quantised([name for name, _ in kept]), _told(quantiser, kept)


def _most_sensitive(
    quantiser: Quantiser, images: Array, batch: int | None, progress: Progress
) -> list[tuple[str, float]]:
    """Return (node, how far it moves the answers), the farthest first."""
    few = images[:: -(-len(images) // _PROBES)]
    with progress.step(f"finding which of {len(quantiser.nodes)} nodes bear INT8"):
        moved = sensitivities(quantiser, few, batch)
    return sorted(moved.items(), key=lambda pair: -pair[1])


def _counts(nodes: int) -> Iterator[int]:
    """Yield 0, 1, 2, 4, ... nodes to keep, and last the most that may be."""
    yield 0
    most, count = int(nodes * _LARGEST_SHARE_KEPT), 1
    while count < most:
        yield count
        count *= 2
    if most:
        yield most


def _told(quantiser: Quantiser, kept: list[tuple[str, float]]) -> tuple[Kept, ...]:
    operators = {node.name: node.op_type for node in quantiser.model.graph.node}
    return tuple(
        Kept(name, operators[name], f"alone in INT8 it moves the answers by {moved:.1%}")
        for name, moved in kept
    )
