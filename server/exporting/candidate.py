"""What a source hands on: a network as ONNX, and the original to compare it with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from onnx import ModelProto

from server.engines.engine import Array
from server.exporting.preprocessing import Preprocessing

# Runs a network: one array per input, batch first; one array per output.
Runner: TypeAlias = Callable[[tuple[Array, ...]], tuple[Array, ...]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network on its way into the repository.

    Args:
        model: the graph as the source has it, taking floats where it takes pictures.
        fixed_batch: the only batch size that it can run; None: any.
        reference: runs the original on any number of items, or on `fixed_batch` of them.
        reference_name: what the original is, for people, e.g. `PyTorch`.
        preprocessing: from pixels to the network's input.
        resize: pixels of the shorter side before the centre crop; None: that of the network's input.
        labels: class names by index; empty when unknown.
        provenance: where it came from, for config.toml.
        notes: what a person should know about this export.
    """

    model: ModelProto
    fixed_batch: int | None
    reference: Runner
    reference_name: str
    preprocessing: Preprocessing
    resize: int | None = None
    labels: tuple[str, ...] = ()
    provenance: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
