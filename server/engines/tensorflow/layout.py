"""Where the channels are: ONNX means planes (NCHW), TensorFlow computes pixels (NHWC).

Images are kept as pixels from the first convolution to the last pooling, and every axis is renamed on the
way, so that TensorFlow runs the layout it was made for and no transposition is paid for in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

_TO_PIXELS = (0, 2, 3, 1)
_TO_PLANES = (0, 3, 1, 2)
PIXEL_AXES = (0, 3, 1, 2)
"""Where ONNX' axes N, C, H, W are found in pixels."""


@dataclass(frozen=True, slots=True)
class Laid:
    """A tensor; with `pixels` it holds NHWC where ONNX means NCHW."""

    tensor: Any
    pixels: bool = False

    @property
    def rank(self) -> int:
        """How many dimensions it has."""
        return len(self.tensor.shape)


Value: TypeAlias = Laid | NDArray[Any]
"""A tensor of the function, or a constant of the file."""


def as_onnx(value: Value) -> Any:  # noqa: ANN401 - tensorflow has no types
    """Return the tensor as ONNX means it."""
    if not isinstance(value, Laid):
        return tf.constant(value)
    return tf.transpose(value.tensor, _TO_PLANES) if value.pixels else value.tensor


def as_pixels(value: Value) -> Any:  # noqa: ANN401
    """Return images as pixels; a constant of lower rank as ONNX would broadcast it."""
    if isinstance(value, Laid):
        return value.tensor if value.pixels else tf.transpose(value.tensor, _TO_PIXELS)
    whole = value.reshape((1,) * (4 - value.ndim) + value.shape)
    return tf.constant(whole.transpose(_TO_PIXELS))


def transposed(value: Value, order: Sequence[int]) -> Laid:
    """Reorder dimensions; between planes and pixels only the name changes."""
    if isinstance(value, Laid) and not value.pixels and tuple(order) == _TO_PLANES:
        return Laid(value.tensor, pixels=True)
    if isinstance(value, Laid) and value.pixels and tuple(order) == _TO_PIXELS:
        return Laid(value.tensor)
    return Laid(tf.transpose(as_onnx(value), order))


def any_pixels(values: Sequence[Value]) -> bool:
    """Whether to compute with pixels: one of the values is, and none is of a rank that cannot be."""
    laid = [value for value in values if isinstance(value, Laid)]
    return any(value.pixels for value in laid) and all(value.rank == 4 for value in laid)


def onnx_axis(axis: int, rank: int) -> int:
    """Count an axis from the front."""
    return axis + rank if axis < 0 else axis


def number(value: Value) -> float:
    """Return a constant of one element."""
    return float(np.asarray(value).reshape(()))
