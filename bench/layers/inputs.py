"""Something for a network to work on while it is timed."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from server.engines.engine import NUMPY_DTYPES, Array
from server.errors import EngineError
from server.onnx_graph import datatype_of, describe, graph_inputs, shape_of

_SEED = 0


def make_inputs(model: ModelProto, batch: int) -> dict[str, Array]:
    """Return noise for each input of the graph: whole numbers from 0 to 127, others around 0.

    Raises:
        EngineError: a dimension besides the batch is open, or the batch is fixed to another.
    """
    noise = np.random.default_rng(_SEED)
    made = {}
    for value in graph_inputs(model):
        first, *rest = shape_of(value) or ("batch",)
        if first not in (batch, None) and isinstance(first, int):
            raise EngineError(f"{describe(value)} takes batches of {first} only, not {batch}")
        sizes = [dim for dim in rest if isinstance(dim, int)]
        if len(sizes) < len(rest) or datatype_of(value) not in NUMPY_DTYPES:
            raise EngineError(f"cannot make up {describe(value)}: only its batch may be open")
        made[value.name] = _noise(noise, (batch, *sizes), np.dtype(NUMPY_DTYPES[datatype_of(value)]))
    return made


def _noise(noise: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    if dtype.kind == "f":
        return noise.standard_normal(shape).astype(dtype)
    return noise.integers(0, 2 if dtype.kind == "b" else 128, shape).astype(dtype)
