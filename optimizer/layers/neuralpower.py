"""NeuralPower as published: six sparse polynomials, for convolution, fully connected and pooling layers.

Cai, Juan, Stamoulis, Marculescu, "NeuralPower: Predict and deploy energy-efficient convolutional neural
networks", ACML 2017. Kept as it was, to compare with: layers of other kinds take no time, groups and fused
followers are not seen, and a network's runtime is the sum of its layers'.

Left open and settled here: depthwise convolutions count as convolutions, with the real number of operations
in the physical terms; the floor, 0.105 ms on the authors' GPU, is the shortest time measured of the kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.layers.dataset import Rows
from optimizer.layers.features import FeatureTable
from optimizer.layers.fusion import Kind
from optimizer.layers.polynomial import SparsePolynomial, fit_polynomial

Array = NDArray[np.float64]

_RAW: Mapping[Kind, tuple[str, ...]] = {
    Kind.CONVOLUTION: (
        "batch", "out_height", "out_width", "kernel_width", "in_channels", "out_channels", "in_height",
        "stride", "padding",
    ),
    Kind.POOLING: (
        "batch", "out_height", "out_width", "out_channels", "kernel_height", "in_height", "stride", "padding",
    ),
    Kind.FULLY_CONNECTED: ("batch", "in_channels", "out_channels"),
}  # fmt: skip
_COUNTED_TO = {Kind.CONVOLUTION: (Kind.DEPTHWISE,), Kind.POOLING: (Kind.WHOLE_POOLING,)}
_RUNTIME_DEGREE = {Kind.CONVOLUTION: 3, Kind.POOLING: 3, Kind.FULLY_CONNECTED: 2}
_POWER_DEGREE = 2


@dataclass(frozen=True, slots=True)
class NeuralPower:
    """The fitted polynomials of each kind.

    Args:
        runtime: seconds.
        power: watts; empty where power was not measured.
        floors_s: the least time of each kind.
    """

    runtime: Mapping[Kind, SparsePolynomial]
    power: Mapping[Kind, SparsePolynomial]
    floors_s: Mapping[Kind, float]

    def seconds(self, table: FeatureTable) -> Array:
        """Return the time of each row; 0 for kinds that the paper does not know."""
        answer = np.zeros(len(table.kinds))
        for kind, model in self.runtime.items():
            rows = rows_of(table, kind)
            part = table.rows(rows)
            answer[rows] = np.maximum(
                model.predict(_raw(part, kind), _physical(part, kind)), self.floors_s[kind]
            )
        return answer

    def watts(self, table: FeatureTable) -> Array | None:
        """Return the power of each row; 0 for kinds that the paper does not know; None without a model."""
        if not self.power:
            return None
        answer = np.zeros(len(table.kinds))
        for kind, model in self.power.items():
            rows = rows_of(table, kind)
            part = table.rows(rows)
            answer[rows] = model.predict(_with_logs(part, kind), _physical(part, kind))
        return answer


def fit_neuralpower(rows: Rows) -> NeuralPower:
    """Fit all six models, or the three of runtime where power was not measured."""
    runtime, power, floors_s = {}, {}, {}
    for kind in _RAW:
        own = rows.where(rows_of(rows.table, kind))
        physical = _physical(own.table, kind)
        runtime[kind] = fit_polynomial(_raw(own.table, kind), physical, own.seconds, _RUNTIME_DEGREE[kind])
        floors_s[kind] = float(own.seconds.min())
        if own.watts is not None:
            power[kind] = fit_polynomial(_with_logs(own.table, kind), physical, own.watts, _POWER_DEGREE)
    return NeuralPower(runtime, power, floors_s)


def rows_of(table: FeatureTable, kind: Kind) -> NDArray[np.bool_]:
    """Return which rows the paper counts to a kind; it knows no finer ones."""
    answer: NDArray[np.bool_] = np.any([table.of(one) for one in (kind, *_COUNTED_TO.get(kind, ()))], axis=0)
    return answer


def _raw(table: FeatureTable, kind: Kind) -> Array:
    return np.column_stack([table.column(name) for name in _RAW[kind]])


def _with_logs(table: FeatureTable, kind: Kind) -> Array:
    raw = _raw(table, kind)
    return np.hstack([raw, np.log2(np.maximum(raw, 0.5))])  # a padding of 0 has no logarithm


def _physical(table: FeatureTable, kind: Kind) -> Array:
    """Return operations and memory accesses, as the paper counts them."""
    column = table.column
    batch, weights = column("batch"), column("weight_bytes") / (column("weight_bits") / 8)
    into, out = column("input_bytes"), column("output_bytes")
    if kind is not Kind.CONVOLUTION:
        return np.column_stack([column("operations"), into, out, weights])
    work = column("multiply_adds")
    gathered = column("batch") * column("out_height") * column("out_width") * column("kernel_height")
    gathered = gathered * column("kernel_width") * column("in_channels")
    return np.column_stack([work / batch, work, gathered, out, weights, into])
