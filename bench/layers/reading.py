"""Reading a network whose layers are to be told apart by name."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
from onnx import ModelProto

from bench.layers.origin import name_of
from server.errors import EngineError


def read_named(path: Path) -> ModelProto:
    """Return the graph without its weights' external data.

    Raises:
        EngineError: it is no ONNX file, or two nodes have one name.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf, onnx and the file system each raise their own
        raise EngineError(f"{path}: not a readable ONNX file: {error}") from error
    names = Counter(map(name_of, model.graph.node))
    if repeated := [name for name, times in names.items() if times > 1]:
        raise EngineError(f"{path}: several nodes are called {repeated[0]}: their times cannot be told apart")
    return model
