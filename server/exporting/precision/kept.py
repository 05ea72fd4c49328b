"""What stays in float32, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto


@dataclass(frozen=True, slots=True)
class Kept:
    """A node that stays in float32.

    Args:
        name: the node's name in the graph.
        operator: its ONNX operator.
        reason: why it stays, for people.
    """

    name: str
    operator: str
    reason: str


def with_names(model: ModelProto) -> ModelProto:
    """Return a copy in which every node has a name of its own, so that nodes can be told apart."""
    copy = ModelProto()
    copy.CopyFrom(model)
    taken: set[str] = set()
    for index, node in enumerate(copy.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}_of_{len(copy.graph.node)}"
        taken.add(node.name)
    return copy


def told(kept: Sequence[Kept]) -> tuple[str, ...]:
    """Return one line a reason, with the nodes it holds for."""
    reasons = dict.fromkeys(node.reason for node in kept)
    return tuple(
        f"{', '.join(f'{node.name} ({node.operator})' for node in kept if node.reason == reason)}: {reason}"
        for reason in reasons
    )
