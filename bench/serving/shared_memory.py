"""System shared memory against the wire: the same server, the same network, the same 4.8 MB batches.

Regions are filled once and sent again and again, as load generators do: what is compared is the path from the
client's memory to the network's input.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from bench.serving import command
from bench.serving.client import Load, measure
from bench.serving.messages import infer_request, shared_memory_request
from bench.serving.networks import INPUT, images, write_repository
from bench.serving.processes import Server
from bench.serving.report import Figure, Result
from bench.serving.rounds import Spread, in_turns, ratio
from bench.serving.settings import Settings
from bench.serving.subjects import boulton
from protos import grpc_service_pb2 as wire
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from server.wire.shared_memory import SHARED_OBJECTS

MODEL = "negligible-fp32"
IMAGES = 8
CONCURRENCY = 8
AT_LEAST = 3.0


def run(settings: Settings, console: Console) -> Result:
    """Measure both ways in turns."""
    tensor = images("FP32", IMAGES)
    with tempfile.TemporaryDirectory() as directory:
        repository = write_repository(Path(directory))
        with (
            boulton(repository, [MODEL], "--shared-memory") as server,
            registered_regions(server.url, tensor, CONCURRENCY) as regions,
        ):
            over_wire = Load([infer_request(MODEL, INPUT, tensor)] * CONCURRENCY, settings.seconds, IMAGES)
            shared = Load(
                [shared_memory_request(MODEL, INPUT, tensor, region) for region in regions],
                settings.seconds,
                IMAGES,
            )
            found = in_turns(_subjects(server, over_wire, shared), settings.rounds, console)
    figures = [
        Figure("over the wire", Spread.of(found["wire"]), "images/s"),
        Figure("through shared memory", Spread.of(found["shared memory"]), "images/s"),
        Figure("shared memory, of the wire", ratio(found["shared memory"], found["wire"]), "x", AT_LEAST),
    ]
    conditions = (f"FP32 batches of {IMAGES} (4.8 MB), concurrency {CONCURRENCY}, a region per worker",)
    return Result("shared_memory", "System shared memory against the wire", figures, conditions)


def _subjects(server: Server, over_wire: Load, shared: Load) -> dict[str, partial[float]]:
    return {
        "wire": partial(_images_per_s, server, over_wire),
        "shared memory": partial(_images_per_s, server, shared),
    }


def _images_per_s(server: Server, load: Load) -> float:
    return measure(server, load).images_per_s


@contextmanager
def registered_regions(url: str, tensor: NDArray[np.generic], count: int) -> Iterator[list[str]]:
    """Create and register `count` regions that hold `tensor`; unregister and remove them afterwards."""
    names = [f"boulton-bench-{os.getpid()}-{number}" for number in range(count)]
    try:
        for name in names:
            (SHARED_OBJECTS / name).write_bytes(tensor.tobytes())
        with grpc.insecure_channel(url) as channel:
            stub = GRPCInferenceServiceStub(channel)
            for name in names:
                stub.SystemSharedMemoryRegister(
                    wire.SystemSharedMemoryRegisterRequest(name=name, key=f"/{name}", byte_size=tensor.nbytes)
                )
            yield names
            stub.SystemSharedMemoryUnregister(wire.SystemSharedMemoryUnregisterRequest())
    finally:
        for name in names:
            (SHARED_OBJECTS / name).unlink(missing_ok=True)


if __name__ == "__main__":
    command.main(run, __doc__)
