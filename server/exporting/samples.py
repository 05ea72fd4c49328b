"""Something to try a network on: photographs for one that takes pictures, else random noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto
from PIL import Image

from server.engines.engine import NUMPY_DTYPES, Array
from server.engines.slots import BUFFER_BYTES_MAX
from server.errors import ExportError
from server.exporting.baking import image_shape
from server.exporting.preprocessing import Preprocessing
from server.images import centre_crop
from server.onnx_graph import datatype_of, describe, graph_inputs, shape_of
from server.photographs import load_photographs

_NOISE_IMAGES = 4


@dataclass(frozen=True, slots=True)
class Samples:
    """The same items as the written file takes them and as the original takes them, batch first.

    Args:
        given: one array per input of the written file.
        original: one array per input of the original.
        photographs: whether the items are real photographs; otherwise they are random noise.
    """

    given: tuple[Array, ...]
    original: tuple[Array, ...]
    photographs: bool

    @property
    def count(self) -> int:
        """Items in all."""
        return len(self.given[0])


def make_samples(
    model: ModelProto, preprocessing: Preprocessing, *, uint8: bool, batch: int | None
) -> Samples:
    """Make items to compare on.

    Args:
        model: the graph before anything was baked into it.
        preprocessing: what turns pixels into the network's input.
        uint8: whether the written file takes pixels rather than floats.
        batch: items when the graph's batch is fixed; None: as many as there are.
    """
    size = image_shape(model)
    if size is None:
        noise = noise_items(model, batch or _NOISE_IMAGES)
        return Samples(noise, noise, photographs=False)
    preprocessing.check_channels(size[0])
    pixels, photographs = _pixels(*size)
    pixels = pixels if batch is None else np.resize(pixels, (batch, *pixels.shape[1:]))
    dtype = NUMPY_DTYPES[datatype_of(graph_inputs(model)[0])]
    floats = preprocessing.apply(pixels).astype(dtype)
    return Samples((pixels if uint8 else floats,), (floats,), photographs)


def noise_items(model: ModelProto, count: int) -> tuple[Array, ...]:
    """Return `[count, ...]` of random values for every input; the same at every call.

    Raises:
        ExportError: an input has an open dimension besides the batch, or a datatype that is not served.
    """
    rng = np.random.default_rng(0)
    return tuple(_noise(rng, value, count) for value in graph_inputs(model))


def _noise(rng: np.random.Generator, value: ValueInfoProto, count: int) -> Array:
    datatype, shape = datatype_of(value), shape_of(value)
    fixed = [dim for dim in (shape or ())[1:] if isinstance(dim, int) and dim > 0]
    if datatype not in NUMPY_DTYPES or not shape or len(fixed) != len(shape) - 1:
        raise ExportError(
            f"input {describe(value)} cannot be served: all dimensions but the first must be fixed and the "
            f"datatype one of {', '.join(NUMPY_DTYPES)}; for pictures of any size give --input-shape C,H,W"
        )
    if count < 1:
        raise ExportError(f"input {describe(value)} cannot be served: its batch holds nothing")
    dtype = NUMPY_DTYPES[datatype]
    size_bytes = count * math.prod(fixed) * dtype.itemsize
    if size_bytes > BUFFER_BYTES_MAX:
        raise ExportError(
            f"input {describe(value)} is too large to try: a batch of {count} takes {size_bytes} bytes, "
            f"at most {BUFFER_BYTES_MAX} are allowed"
        )
    if dtype.kind == "f":
        return rng.standard_normal((count, *fixed)).astype(dtype)
    return rng.integers(0, 2, (count, *fixed)).astype(dtype)  # 0 and 1 are in range whatever indices mean


def _pixels(channels: int, height: int, width: int) -> tuple[NDArray[np.uint8], bool]:
    """Return UINT8 `[n, height, width, channels]` and whether they are photographs."""
    photographs = load_photographs()
    if not photographs:
        rng = np.random.default_rng(0)
        shape = (_NOISE_IMAGES, height, width, channels)
        return rng.integers(0, 256, shape, dtype=np.uint8), False
    mode = "RGB" if channels == 3 else "L"
    pictures = [Image.fromarray(photograph.pixels).convert(mode) for photograph in photographs]
    cropped = [np.asarray(centre_crop(picture, height, width)) for picture in pictures]
    return np.stack(cropped).reshape(len(cropped), height, width, channels), True
