"""Sessions of ONNX Runtime on the CPU: as the engine `onnxruntime` opens them, and with its profiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime

from server.errors import EngineError

EXECUTED = "executed.onnx"
"""What a profiled session writes beside its profile: the graph as it is executed, without the weights."""


def cpu_options(threads: int) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """The same as the engine's."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def profiling_options(threads: int, folder: Path) -> Any:  # noqa: ANN401
    """Likewise, and every node is timed; the profile and `EXECUTED` go to a folder."""
    options = cpu_options(threads)
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    options.optimized_model_filepath = str(folder / EXECUTED)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
    return options


def open_on_cpu(path: Path, options: Any) -> Any:  # noqa: ANN401
    """Open a network. Raises EngineError for a file that cannot be used, and why."""
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise EngineError(f"ONNX Runtime cannot load {path}: {error}") from error
