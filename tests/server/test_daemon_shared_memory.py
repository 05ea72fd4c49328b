"""A client that pulls its shared memory away under the daemon's hands."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from daemon_process import DaemonProcess, double_model, start_daemon

from protos import grpc_service_pb2 as pb
from protos import grpc_service_pb2_grpc as pb_grpc
from server.wire.shared_memory import SHARED_OBJECTS

ROWS, SIZE = 4, 1 << 20  # so large that no event loop takes the batch for a short one
NBYTES = ROWS * SIZE * 4
DEADLINE_S = 60.0
SEEN = "made smaller while it was read"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    directory = tmp_path / "repository" / "double" / "1"
    directory.mkdir(parents=True)
    (directory / "model.onnx").write_bytes(double_model(SIZE).SerializeToString())
    return tmp_path / "repository"


@pytest.fixture
def shared() -> Iterator[Path]:
    """A shared memory object that holds ones."""
    path = SHARED_OBJECTS / f"boulton-test-{os.getpid()}-{os.urandom(4).hex()}"
    path.write_bytes(np.ones((ROWS, SIZE), np.float32).tobytes())
    yield path
    path.unlink()


def request() -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="double")
    tensor = message.inputs.add(name="x", datatype="FP32", shape=(ROWS, SIZE))
    tensor.parameters["shared_memory_region"].string_param = "r"
    tensor.parameters["shared_memory_byte_size"].int64_param = NBYTES
    return message


def ask_until_seen(
    daemon: DaemonProcess, stub: pb_grpc.GRPCInferenceServiceStub
) -> set[tuple[grpc.StatusCode, str]]:
    """Ask again and again until the daemon has met the loss in the middle of a copy; return its refusals."""
    refusals = set()
    deadline_s = time.monotonic() + DEADLINE_S
    while SEEN not in daemon.text and time.monotonic() < deadline_s:
        try:
            answer = stub.ModelInfer(request(), timeout=30)
            found = np.frombuffer(answer.raw_output_contents[0], np.float32)
            assert found[: found.size // 2].tolist() == [2.0] * (found.size // 2)
        except grpc.RpcError as error:
            refusals.add((error.code(), error.details()))
    return refusals


@pytest.mark.usefixtures("ways")
def test_a_client_that_makes_its_memory_smaller_again_and_again_harms_nobody(
    tmp_path: Path, repository: Path, shared: Path
) -> None:
    over = threading.Event()

    def shrink_and_grow() -> None:
        while not over.is_set():  # many times while one batch is copied
            os.truncate(shared, NBYTES // 2)
            os.truncate(shared, NBYTES)

    with start_daemon(tmp_path, "--repository", repository, "--shared-memory") as daemon:
        options = (("grpc.max_receive_message_length", -1),)
        with grpc.insecure_channel(daemon.address, options=options) as channel:
            stub = pb_grpc.GRPCInferenceServiceStub(channel)
            stub.SystemSharedMemoryRegister(
                pb.SystemSharedMemoryRegisterRequest(name="r", key=f"/{shared.name}", byte_size=NBYTES)
            )
            client = threading.Thread(target=shrink_and_grow)
            client.start()
            try:
                refusals = ask_until_seen(daemon, stub)
            finally:
                over.set()
                client.join()
            assert SEEN in daemon.text
            assert {code for code, _ in refusals} <= {grpc.StatusCode.INVALID_ARGUMENT}
            assert all("made smaller after it was registered" in details for _, details in refusals)
            shared.write_bytes(np.full((ROWS, SIZE), 3, np.float32).tobytes())
            answer = stub.ModelInfer(request(), timeout=30)
            assert set(np.frombuffer(answer.raw_output_contents[0], np.float32)) == {np.float32(6)}
        daemon.tell(signal.SIGTERM)
        assert daemon.end() == 0
