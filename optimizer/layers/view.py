"""What our predictor looks at in a step, in logarithms, because time is a product of causes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from optimizer.layers.features import FeatureTable
from optimizer.layers.fusion import Kind
from optimizer.layers.layout import BLOCK

Array = NDArray[np.float64]

_LARGEST_CACHE_BYTES = 2.0**26

_TRAFFIC = ("operations", "input_bytes", "output_bytes")
_WINDOWED = (*_TRAFFIC, "pixels", "window", "stride", "batch", "out_channels", "in_width", "padding", "waste")
_LOGS: Mapping[Kind, tuple[str, ...]] = {
    Kind.CONVOLUTION: (
        *(*_WINDOWED, "weight_bytes", "channels_a_group", "answers_a_group", "groups", "in_waste"),
        *("grouped", "activated", "summed", "blocked"),
    ),
    Kind.DEPTHWISE: (*_WINDOWED, "weight_bytes", "activated", "summed", "blocked", "since"),
    Kind.FULLY_CONNECTED: (
        "operations",
        "weight_bytes",
        "batch",
        "in_channels",
        "out_channels",
        "waste",
        "network",
    ),
    Kind.POOLING: (
        "input_bytes",
        "output_bytes",
        "window",
        "stride",
        "in_width",
        "padding",
        "maximum",
        "blocked",
        "scalar",
        "since",
    ),
    Kind.WHOLE_POOLING: ("input_bytes", "window", "batch", "out_channels", "blocked"),
    Kind.MOVE: (*_TRAFFIC, "inputs", "batch", "out_channels", "waste", "pixels", "blocked", "since"),
    Kind.NORMALISATION: (*_TRAFFIC, "batch", "out_channels", "activated"),
    Kind.ELEMENTWISE: (*_TRAFFIC, "inputs", "batch", "out_channels", "since"),
    Kind.LOCAL_RESPONSE: (*_TRAFFIC, "batch", "out_channels", "pixels"),
}
_ANY = ("operations", "traffic")

COLUMNS_OF: Mapping[str, tuple[str, ...]] = {
    "any": _ANY,
    **{kind.value: names for kind, names in _LOGS.items()},
}
"""What is looked at in each kind; a saved predictor is of use only with the columns that it was fitted to."""


def view(table: FeatureTable, kind: Kind | None) -> Array:
    """Return the columns for a kind; for None the few that every step has."""
    names = _ANY if kind is None else _LOGS[kind]
    return np.column_stack([_column(table, name) for name in names])


def _column(table: FeatureTable, name: str) -> Array:
    column = table.column
    made: Mapping[str, Callable[[], Array]] = {
        "pixels": lambda: np.log(column("out_height") * column("out_width")),
        "window": lambda: np.log(column("kernel_height") * column("kernel_width")),
        "waste": lambda: _waste(column("out_channels")),
        "in_waste": lambda: _waste(column("in_channels")),
        "channels_a_group": lambda: np.log(column("in_channels") / column("groups")),
        "answers_a_group": lambda: np.log(column("out_channels") / column("groups")),
        "since": lambda: _held(column("since_bytes") + column("since_weight_bytes")),
        "network": lambda: _held(column("network_bytes") + column("network_weight_bytes")),
        "traffic": lambda: np.log(
            1.0 + column("input_bytes") + column("weight_bytes") + column("output_bytes")
        ),
        "blocked": lambda: column("blocked"),
        "scalar": lambda: column("scalar"),
        "maximum": lambda: column("maximum"),
        "grouped": lambda: (column("groups") > 1).astype(float),
        "activated": lambda: column("activated"),
        "summed": lambda: column("summed"),
        "padding": lambda: np.minimum(column("padding"), 3.0),
    }
    answer: Array = made[name]() if name in made else np.log(np.maximum(column(name), 1.0))
    return answer


def _held(moved_bytes: Array) -> Array:
    """Return the logarithm of what moved, up to what no cache holds: more makes no difference."""
    answer: Array = np.log(1.0 + np.minimum(moved_bytes, _LARGEST_CACHE_BYTES))
    return answer


def _waste(channels: Array) -> Array:
    """Return the logarithm of how much the channels grow when their last block is filled up."""
    answer: Array = np.log(np.ceil(channels / BLOCK) * BLOCK / np.maximum(channels, 1.0))
    return answer
