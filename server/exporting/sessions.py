"""Running an ONNX file once or twice, to see whether it does what it should."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from server.engines.engine import Array
from server.errors import ExportError
from server.exporting.candidate import Runner
from server.exporting.complaints import in_a_line

# protobuf cannot serialise more; some room is left for the graph around the weights.
INLINE_LIMIT_BYTES = (1 << 31) - (16 << 20)


def save_model(model: ModelProto, path: Path, inline_limit_bytes: int = INLINE_LIMIT_BYTES) -> bool:
    """Write the graph; weights of more than `inline_limit_bytes` go into `<path>.data` beside it.

    Returns:
        Whether everything is in the one file.
    """
    inline = sum(len(tensor.raw_data) for tensor in model.graph.initializer) <= inline_limit_bytes
    if inline:
        onnx.save_model(model, path)
        return True
    # Saving with external data empties the tensors of the model it is given.
    copy = ModelProto()
    copy.CopyFrom(model)
    onnx.save_model(copy, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=1024)
    return False


def open_runner(path: Path) -> Runner:
    """Return a function that runs the file on ONNX Runtime's CPU provider.

    Raises:
        ExportError: ONNX Runtime is missing, or does not accept the file.
    """
    session = _session(path)
    names = [value.name for value in session.get_inputs()]

    def run(inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(np.asarray(out) for out in session.run(None, dict(zip(names, inputs, strict=True))))

    return run


def runner_of(model: ModelProto) -> Runner:
    """Return a function that runs a graph in memory; see `open_runner`."""
    with tempfile.TemporaryDirectory(prefix="boulton-") as directory:
        path = Path(directory) / "model.onnx"
        save_model(model, path)
        return open_runner(path)


def _session(path: Path) -> Any:  # noqa: ANN401 - onnxruntime ships no types
    try:
        ort = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ExportError(
            "ONNX Runtime is needed to check an export; install it with: pip install 'boulton[cpu]'"
        ) from error
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what is wrong comes as an exception as well
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base but Exception
        raise ExportError(f"ONNX Runtime does not accept the graph: {in_a_line(error)}") from error
