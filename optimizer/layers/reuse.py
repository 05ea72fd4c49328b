"""How much else moved since a step's inputs were last touched: whether a cache may still hold them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from optimizer.layers.fusion import Step


def moved_since(steps: Sequence[Step], moved_bytes: Sequence[float]) -> tuple[float, ...]:
    """Return what moved from the last touch of each step's inputs until the step: a mean over input bytes.

    The step that made or read an input last counts in full. Runs follow each other: what the network is given
    was touched a whole run ago.

    Args:
        steps: of a network, in the order of the graph.
        moved_bytes: by each step.
    """
    until = [0.0, *accumulate(moved_bytes)]
    touched = {tensor.name: -1 for tensor in steps[0].leader.inputs} if steps else {}
    answer = []
    for place, step in enumerate(steps):
        inputs = step.inputs
        total = sum(tensor.size_bytes for tensor in inputs)
        # what no step made is the answer of the step before under another shape
        last = [touched.get(tensor.name, place - 1) for tensor in inputs]
        since = [until[-1] if one < 0 else until[place] - until[one] for one in last]
        weighed = sum(tensor.size_bytes * each for tensor, each in zip(inputs, since, strict=True))
        answer.append(weighed / total if total else 0.0)
        touched.update(dict.fromkeys((*(tensor.name for tensor in inputs), *step.tensors), place))
    return tuple(answer)
