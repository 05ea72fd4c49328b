"""What costs time in a step: amounts whose prices are fitted, one column a cause."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from optimizer.layers.features import FeatureTable
from optimizer.layers.fusion import Kind
from optimizer.layers.layout import BLOCK

Array = NDArray[np.float64]

ANY = "any"
"""The name of what goes for every kind."""
_CACHES_BYTES = (2**18, 2**20, 2**22, 2**24, 2**26)
"""Sizes between which those of a processor's caches lie; what a byte costs beyond each is fitted."""
_LOST_AFTER_OPERATIONS = (1e8, 2e8, 4e8, 1e9)
"""About 1 to 10 ms of a processor's core: as long as a cache that others share holds what was written."""
_FLOWING = frozenset(
    kind.value
    for kind in (Kind.WHOLE_POOLING, Kind.DEPTHWISE, Kind.ELEMENTWISE, Kind.MOVE, Kind.NORMALISATION)
)
"""Kinds that are limited by what flows; poolings, too, have causes of their own."""
_PRODUCTS = frozenset({Kind.FULLY_CONNECTED.value})
_WINDOWED = frozenset(kind.value for kind in (Kind.WHOLE_POOLING, Kind.CONVOLUTION, Kind.DEPTHWISE))
_SPREADING = frozenset(kind.value for kind in (Kind.CONVOLUTION, Kind.DEPTHWISE, Kind.ELEMENTWISE, Kind.MOVE))
"""Kinds that answer with as much as they read, and so come to new memory; poolings do, too."""
_VECTOR_STRIDE = 2
"""Windows that step further are gathered one number at a time."""


def causes_of(table: FeatureTable, name: str) -> Array:
    """Return the amounts `[rows, causes]` in steps of a kind, given by its name, or of any.

    Always first: the step itself. Then operations, bytes, and what caches and layout add. What flows limits
    some kinds, weights limit fully connected layers: of those, the bytes that a cache of each size does not
    hold cost more. Windows over channels that lie in no blocks cost more an operation, and most where the
    engine takes one number at a time; so do convolutions in groups.
    """
    if name == Kind.POOLING.value:
        return _of_poolings(table)
    column = table.column
    flowing, weights = column("input_bytes") + column("output_bytes"), column("weight_bytes")
    causes = [np.ones(len(flowing)), column("operations"), flowing, weights]
    if name in _PRODUCTS | _FLOWING:
        network = column("network_bytes") + column("network_weight_bytes")
        since = column("since_bytes") + column("since_weight_bytes")
        causes += _beyond(flowing, since) if name in _FLOWING else _beyond(weights, network)
    if name in _WINDOWED:
        plain = column("operations") * (1.0 - column("blocked"))
        causes += [plain * (1.0 - column("scalar")), plain * column("scalar")]
    if name == Kind.CONVOLUTION.value:
        causes.append(column("operations") * (column("groups") > 1))
    if name in _SPREADING:
        causes += _of_fresh_memory(table)
    return np.column_stack(causes)


def charged(table: FeatureTable, name: str, prices_s: Array) -> Array:
    """Return seconds `[rows, clocks]` at prices `[clocks, causes]`.

    New causes come last: where there are fewer prices, they were fitted before the others were known.
    """
    answer: Array = causes_of(table, name)[:, : prices_s.shape[1]] @ prices_s.T
    return answer


def _of_poolings(table: FeatureTable) -> Array:
    """Return what costs time in poolings, by the loops of the three codes that engines have for them.

    In blocks: pixels of windows, answers and rows of answers, each for a whole block of channels. One number
    at a time: every pixel. Otherwise, for each channel: rows of an image under rows of windows, and then the
    answers. Bytes cost what they do in blocks or not. Of what is read in blocks, which is quick where caches
    hold it, they have lost the beginning once the rest was written; after a long convolution it is slow, and
    so is the step as such.
    """
    column = table.column
    blocked, scalar = column("blocked"), column("scalar")
    channels, rows = column("out_channels"), column("batch") * column("out_height")
    in_blocks = blocked * np.ceil(channels / BLOCK)
    pixels = column("batch") * pixels_inside(table)
    plain = (1.0 - blocked) * (1.0 - scalar) * channels * rows
    across = plain * column("out_width") * column("kernel_width")
    causes = [
        np.ones(len(rows)),
        *(in_blocks * pixels, in_blocks * rows, in_blocks * rows * column("out_width")),
        (1.0 - blocked) * scalar * channels * pixels,
        *(plain, plain * column("kernel_height") * column("in_width")),
        *(across, across * (column("stride") > _VECTOR_STRIDE)),
    ]
    flowing = column("input_bytes") + column("output_bytes")
    since = column("since_bytes") + column("since_weight_bytes")
    for lies in (blocked, 1.0 - blocked):
        causes += [lies * flowing, *_beyond(lies * flowing, since)]
    read, computed = blocked * column("input_bytes"), column("since_operations")
    causes += _beyond(read, column("input_bytes"))
    causes += _beyond(read, computed, _LOST_AFTER_OPERATIONS)
    causes += _beyond(blocked, computed, _LOST_AFTER_OPERATIONS)
    causes += [*_of_fresh_memory(table), _fresh_share(table) * column("input_bytes")]
    return np.column_stack(causes)


def _of_fresh_memory(table: FeatureTable) -> list[Array]:
    """Return what it costs to answer in memory that the run has not touched yet: its bytes, the way there."""
    return [table.column("fresh_bytes"), _fresh_share(table)]


def _fresh_share(table: FeatureTable) -> Array:
    answer: Array = table.column("fresh_bytes") / np.maximum(table.column("output_bytes"), 1.0)
    return answer


def pixels_inside(table: FeatureTable) -> Array:
    """Return the pixels that all windows over one channel see together; what lies beyond the edge is none."""
    sides = ("in_height", "kernel_height", "out_height"), ("in_width", "kernel_width", "out_width")
    high, wide = (_inside(table, *map(table.column, names)) for names in sides)
    return high * wide


def _inside(table: FeatureTable, side: Array, kernel: Array, answers: Array) -> Array:
    """Count along one side: each pixel of a window is inside for answers in a row."""
    stride, padding = table.column("stride"), table.column("padding")
    inside = np.zeros(len(side))
    for offset in range(int(kernel.max(initial=0.0))):
        first = np.maximum(np.ceil((padding - offset) / stride), 0.0)
        last = np.minimum(np.floor((side - 1.0 + padding - offset) / stride), answers - 1.0)
        inside += (offset < kernel) * np.maximum(last - first + 1.0, 0.0)
    one: Array = np.where(side > 1.0, inside, answers)  # every window over a single pixel sees it once
    return one


def _beyond(moved: Array, between: Array, limits: tuple[float, ...] = _CACHES_BYTES) -> list[Array]:
    """Return what each cache does not hold until it is used again; `limits`: what may pass in between."""
    return [moved * np.maximum(0.0, 1.0 - limit / np.maximum(between, 1.0)) for limit in limits]
