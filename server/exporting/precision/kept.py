"""What stays in float32, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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


def told(kept: Sequence[Kept]) -> tuple[str, ...]:
    """Return one line a reason, with the nodes it holds for."""
    reasons = dict.fromkeys(node.reason for node in kept)
    return tuple(
        f"{', '.join(f'{node.name} ({node.operator})' for node in kept if node.reason == reason)}: {reason}"
        for reason in reasons
    )
