"""Layers as rows of numbers: what a predictor sees of a step, at any batch size.

Everything is a plain physical quantity; logarithms, products and the like are made by the predictors. Bytes
and operations are those of the whole step, with the followers that it swallowed. Whether weights are still in
a cache depends on what the whole network moved since the last run: that is in every row too, and a table is
made of all steps of a network at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.layers.fusion import SUMS, Kind, Step
from optimizer.layers.layout import placings
from optimizer.layers.memory import fresh_bytes
from optimizer.layers.reuse import moved_since

Array = NDArray[np.float64]

NAMES = (
    "batch",
    "in_channels",
    "in_height",
    "in_width",
    "out_channels",
    "out_height",
    "out_width",
    "kernel_height",
    "kernel_width",
    "stride",
    "padding",
    "groups",
    "inputs",  # tensors that flow in
    "activated",  # 1 where an activation follows, else 0
    "summed",  # 1 where another branch is added, else 0
    "bits",  # of an element that flows
    "weight_bits",
    "multiply_adds",
    "operations",
    "input_bytes",
    "weight_bytes",
    "output_bytes",
    "blocked",  # 1 where blocks of channels lie side by side, 0 where channels lie one after the other
    "scalar",  # 1 where the engine takes one number at a time
    "turned_bytes",  # that are copied from one layout to the other for its sake
    "since_bytes",  # that flowed since the inputs were last touched
    "since_weight_bytes",  # of steps since then
    "maximum",  # 1 where a window's largest number is taken, 0 where its mean is
    "network_bytes",  # that flow in a whole run
    "network_weight_bytes",  # of all steps
    "since_operations",  # of convolutions, that would have taken as long as what was computed since then
    "fresh_bytes",  # that are written to memory which the run has not touched before
)
"""The columns of a `FeatureTable`, in their order."""

_WITH_BATCH = frozenset(
    {
        "batch",
        "multiply_adds",
        "operations",
        "input_bytes",
        "output_bytes",
        "network_bytes",
        "turned_bytes",
        "since_bytes",
        "since_operations",
        "fresh_bytes",
    }
)

_POWERS_LAST = 400.0
"""How many times as long as one of a convolution an operation of a local response normalisation takes, which
raises each number to a power: measured on ONNX Runtime's CPU engine."""


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """One row a step.

    Args:
        kinds: of each row.
        names: of each row, as in the graph.
        values: float64 `[rows, len(NAMES)]`.
    """

    kinds: tuple[Kind, ...]
    names: tuple[str, ...]
    values: Array

    def column(self, name: str) -> Array:
        """Return one column. Raises ValueError for a name that is not in `NAMES`."""
        return self.values[:, NAMES.index(name)]

    def rows(self, wanted: Sequence[int] | NDArray[np.bool_] | NDArray[np.int64]) -> FeatureTable:
        """Return some of the rows: by a mask or by their numbers."""
        numbers = np.arange(len(self.kinds))[np.asarray(wanted)]
        return FeatureTable(
            tuple(self.kinds[number] for number in numbers),
            tuple(self.names[number] for number in numbers),
            self.values[numbers],
        )

    def of(self, kind: Kind) -> NDArray[np.bool_]:
        """Return which rows are of a kind."""
        return np.array([found is kind for found in self.kinds], bool)

    def at(self, batches: Sequence[int]) -> FeatureTable:
        """Repeat a table that was made at batch 1 for each batch: all rows at the first, then at the next.

        What flows grows with the batch, weights and shapes of one image do not.
        """
        growing = np.array([name in _WITH_BATCH for name in NAMES])
        factors = np.where(growing, np.asarray(batches, float)[:, np.newaxis, np.newaxis], 1.0)
        values = (factors * self.values).reshape(-1, len(NAMES))
        return FeatureTable(self.kinds * len(batches), self.names * len(batches), values)


def features(steps: Iterable[Step]) -> FeatureTable:
    """Return the table of all steps of a network, in their order."""
    steps = tuple(steps)
    rows = [_values(step) for step in steps]
    both = tuple(zip(steps, rows, strict=True))
    whole = {
        "network_bytes": sum(row["input_bytes"] + row["output_bytes"] for row in rows),
        "network_weight_bytes": sum(row["weight_bytes"] for row in rows),
    }
    since = moved_since(steps, [row["input_bytes"] + row["output_bytes"] for row in rows])
    weights = moved_since(steps, [row["weight_bytes"] for row in rows])
    computed = moved_since(steps, [_lasting(step, row["operations"]) for step, row in both])
    lying = placings(steps)
    fresh = fresh_bytes(steps, lying)
    placed = [
        {
            "blocked": one.blocked,
            "scalar": one.scalar,
            "turned_bytes": one.turned_bytes,
            "since_bytes": flowed,
            "since_weight_bytes": weighed,
            "since_operations": waited,
            "fresh_bytes": new,
        }
        for one, flowed, weighed, waited, new in zip(lying, since, weights, computed, fresh, strict=True)
    ]
    full = zip(rows, placed, strict=True)
    values = np.array([_row({**row, **place, **whole}) for row, place in full], float)
    values = values.reshape(-1, len(NAMES))
    return FeatureTable(tuple(step.kind for step in steps), tuple(step.name for step in steps), values)


def join(tables: Sequence[FeatureTable]) -> FeatureTable:
    """Return the rows of all tables, one after the other."""
    return FeatureTable(
        tuple(kind for table in tables for kind in table.kinds),
        tuple(name for table in tables for name in table.names),
        np.concatenate([np.empty((0, len(NAMES))), *(table.values for table in tables)]),
    )


def _lasting(step: Step, operations: float) -> float:
    """Return the operations of a convolution that take as long."""
    return operations * (_POWERS_LAST if step.kind is Kind.LOCAL_RESPONSE else 1.0)


def _row(values: Mapping[str, float]) -> list[float]:
    return [float(values[name]) for name in NAMES]


def _values(step: Step) -> Mapping[str, float]:
    layer = step.leader
    flowing = layer.inputs[0] if layer.inputs else layer.outputs[0]
    in_channels, in_height, in_width = _sizes(flowing.shape)
    out_channels, out_height, out_width = _sizes(layer.outputs[0].shape)
    whole = (in_height, in_width) if step.kind is Kind.WHOLE_POOLING else (1, 1)
    kernel_height, *kernel_across = layer.kernel or whole
    summed = [follower for follower in step.followers if follower.operator in SUMS]
    return {
        "batch": max(layer.outputs[0].shape[0], 1) if layer.outputs[0].shape else 1,
        "in_channels": sum(_sizes(tensor.shape)[0] for tensor in layer.inputs)
        if layer.operator == "Concat"
        else in_channels,
        "in_height": in_height,
        "in_width": in_width,
        "out_channels": out_channels,
        "out_height": out_height,
        "out_width": out_width,
        "kernel_height": kernel_height,
        "kernel_width": math.prod(kernel_across),
        "stride": layer.strides[0] if layer.strides else 1,
        "padding": layer.pads[0] if layer.pads else 0,
        "groups": layer.groups,
        "inputs": len(layer.inputs) + len(summed),
        "activated": float(any(f.operator not in SUMS and not f.weights for f in step.followers)),
        "summed": float(bool(summed)),
        "bits": flowing.bits,
        "weight_bits": layer.weights[0].bits if layer.weights else flowing.bits,
        "multiply_adds": layer.multiply_adds,
        "operations": sum(part.operations or 0 for part in (layer, *step.followers)),
        "input_bytes": layer.input_bytes + sum(part.output_bytes for part in summed),
        "weight_bytes": sum(part.weight_bytes for part in (layer, *step.followers)),
        "output_bytes": layer.output_bytes,
        "maximum": float("Max" in layer.operator),
    }


def _sizes(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return channels, height and width; numbers in a row are channels, a third dimension is a height.

    What comes after the height counts as width, and so it is with windows. What is empty counts as one: it
    has no logarithm.
    """
    channels, height, *across = (max(side, 1) for side in (*shape[1:], 1, 1)[: max(len(shape) - 1, 2)])
    return channels, height, math.prod(across)
