"""NVIDIA's PyTriton serving one ONNX file. Runs in the peer's own environment; imports nothing of Boulton.

python pytriton_app.py MODEL_NAME FILE.onnx GRPC_PORT HTTP_PORT THREADS MAX_BATCH
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeAlias, cast

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig, TritonSecurityConfig

Infer: TypeAlias = Callable[..., dict[str, NDArray[np.generic]]]

DTYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}


def open_session(path: str, threads: int) -> onnxruntime.InferenceSession:
    """Open the network with the session options that Boulton uses."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def tensors(declared: list[onnxruntime.NodeArg]) -> list[Tensor]:
    """Describe inputs or outputs, without the batch dimension."""
    return [Tensor(name=arg.name, dtype=DTYPES[arg.type], shape=tuple(arg.shape[1:])) for arg in declared]


def inference(session: onnxruntime.InferenceSession) -> Infer:
    """Return the function that PyTriton calls with a whole batch."""
    names = [output.name for output in session.get_outputs()]

    @batch  # type: ignore[untyped-decorator]  # PyTriton is not installed here
    def infer(**inputs: NDArray[np.generic]) -> dict[str, NDArray[np.generic]]:
        return dict(zip(names, session.run(None, inputs), strict=True))

    return cast("Infer", infer)


def main() -> None:
    """Serve until SIGTERM."""
    name, path, grpc_port, http_port, threads, max_batch = sys.argv[1:]
    session = open_session(path, int(threads))
    ports = TritonConfig(
        http_address="127.0.0.1",
        grpc_address="127.0.0.1",
        http_port=int(http_port),
        grpc_port=int(grpc_port),
        allow_metrics=False,
    )
    # PyTriton keeps shared memory behind a token unless nothing is restricted.
    open_to_all = TritonSecurityConfig(restricted_endpoints=[])
    with Triton(config=ports, security_config=open_to_all) as triton:
        triton.bind(
            model_name=name,
            infer_func=inference(session),
            inputs=tensors(session.get_inputs()),
            outputs=tensors(session.get_outputs()),
            config=ModelConfig(
                max_batch_size=int(max_batch), batcher=DynamicBatcher(max_queue_delay_microseconds=0)
            ),
        )
        triton.serve()


if __name__ == "__main__":
    main()
