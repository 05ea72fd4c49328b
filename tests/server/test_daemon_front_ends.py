"""`boulton serve --front-ends`: what an operator sees of the processes that speak gRPC for the daemon."""

from __future__ import annotations

import operator
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from certificates import make_authority, make_identity
from daemon_process import DaemonProcess, command, put_double, start_daemon
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.serving.processes import family
from protos import grpc_service_pb2 as pb
from protos import grpc_service_pb2_grpc as pb_grpc

PATIENCE_S = 30.0
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # where POSIX shared memory lives
X = np.arange(4, dtype=np.float32).reshape(1, 4)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    repository = put_double(tmp_path / "repository")
    with start_daemon(tmp_path, "--repository", repository, "--front-ends", "2") as daemon:
        yield daemon


def front_ends(daemon: DaemonProcess) -> set[int]:
    return set(family(daemon.process.pid)) - {daemon.process.pid}


def alive(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def metric(daemon: DaemonProcess, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{daemon.metrics_port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def descriptors(process: int) -> int:
    return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())


def double_request() -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="double", raw_input_contents=[X.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=X.shape)
    return request


@contextmanager
def connection(daemon: DaemonProcess) -> Iterator[pb_grpc.GRPCInferenceServiceStub]:
    """A client with a connection of its own, to whichever front end the kernel chooses."""
    alone = (("grpc.use_local_subchannel_pool", 1),)
    with grpc.insecure_channel(daemon.address, options=alone) as channel:
        yield pb_grpc.GRPCInferenceServiceStub(channel)


def answers(daemon: DaemonProcess) -> bool:
    with connection(daemon) as stub:
        answer = stub.ModelInfer(double_request(), timeout=30)
    return answer.raw_output_contents[0] == (2 * X).tobytes()


def test_they_come_and_go_with_the_daemon(daemon: DaemonProcess) -> None:
    started = front_ends(daemon)
    assert len(started) == 2
    assert (metric(daemon, "boulton_front_ends"), metric(daemon, "boulton_front_end_restarts_total")) == (
        2,
        0,
    )
    assert all(answers(daemon) for _ in range(8))
    assert metric(daemon, 'nv_inference_count{model="double",version="1"}') == 8
    daemon.tell(signal.SIGTERM)
    assert daemon.end() == 0
    assert not any(alive(process) for process in started)


def test_one_that_dies_is_replaced_and_counted(daemon: DaemonProcess) -> None:
    lost, other = front_ends(daemon)
    os.kill(lost, signal.SIGKILL)
    until(lambda: metric(daemon, "boulton_front_end_restarts_total") == 1)
    until(lambda: metric(daemon, "boulton_front_ends") == 2)
    assert len(front_ends(daemon)) == 2
    assert other in front_ends(daemon)
    assert all(answers(daemon) for _ in range(8))
    daemon.tell(signal.SIGTERM)
    assert daemon.end() == 0
    assert "a front end has ended" in daemon.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_a_terminal_tells_all_ends_them_in_order(daemon: DaemonProcess, number: signal.Signals) -> None:
    for process in (*front_ends(daemon), daemon.process.pid):
        os.kill(process, number)
    assert daemon.end() == 0
    assert "front end has ended" not in daemon.text


def test_none_outlives_a_daemon_that_is_killed(daemon: DaemonProcess, tmp_path: Path) -> None:
    started, shared = front_ends(daemon), set(SHARED_MEMORY.iterdir())
    with grpc.insecure_channel(daemon.address) as channel:
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        next(health)
        daemon.process.kill()
        with pytest.raises(grpc.RpcError) as ended:
            next(health)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    daemon.process.wait(PATIENCE_S)
    until(lambda: not any(alive(process) for process in started))
    assert {path.name for path in set(SHARED_MEMORY.iterdir()) - shared if "boulton" in path.name} == set()
    flags = ("--repository", tmp_path / "repository", "--front-ends", "1", "--port", str(daemon.grpc_port))
    with start_daemon(tmp_path, *flags) as next_one:
        assert answers(next_one)


def test_one_that_is_stopped_holds_up_its_own_clients_alone(daemon: DaemonProcess) -> None:
    with ExitStack() as stack:
        stubs = [stack.enter_context(connection(daemon)) for _ in range(16)]
        for stub in stubs:
            stub.ModelInfer(double_request(), timeout=30)
        stopped, _ = front_ends(daemon)
        os.kill(stopped, signal.SIGSTOP)
        calls = [stub.ModelInfer.future(double_request(), timeout=60) for stub in stubs]
        impatient = [stub.ModelInfer.future(double_request(), timeout=1) for stub in stubs]
        codes = {call.exception().code() if call.exception() else None for call in impatient}
        assert codes == {None, grpc.StatusCode.DEADLINE_EXCEEDED}
        os.kill(stopped, signal.SIGCONT)
        assert [call.exception() for call in calls] == [None] * len(calls)
    assert metric(daemon, "boulton_front_end_restarts_total") == 0


def test_descriptors_are_closed_with_their_connections(daemon: DaemonProcess) -> None:
    processes = (daemon.process.pid, *front_ends(daemon))
    assert all(answers(daemon) for _ in range(8))
    before = [descriptors(process) for process in processes]
    with ExitStack() as stack:
        stubs = [stack.enter_context(connection(daemon)) for _ in range(100)]
        calls = [stub.ModelInfer.future(double_request(), timeout=60) for stub in stubs]
        assert [call.exception() for call in calls] == [None] * len(calls)
        assert sum(map(descriptors, processes)) > len(stubs)
    for greeting in (b"", b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") * 200:
        with socket.create_connection(("127.0.0.1", daemon.grpc_port), PATIENCE_S) as client:
            client.sendall(greeting)
    until(lambda: all(map(operator.le, map(descriptors, processes), before)))
    assert answers(daemon)


def test_mtls(tmp_path: Path) -> None:
    authority = make_authority(tmp_path, "authority")
    server, client = (make_identity(tmp_path, name, authority) for name in ("server", "client"))
    stranger = make_identity(tmp_path, "stranger", make_authority(tmp_path, "elsewhere"))
    files = ("--tls-cert", server.certificate_path, "--tls-key", server.key_path)
    flags = (*files, "--tls-client-ca", authority.certificate_path, "--front-ends", "2")
    with start_daemon(tmp_path, "--repository", put_double(tmp_path / "repository"), *flags) as daemon:
        root = authority.certificate_path.read_bytes()
        for identity, welcome in ((client, True), (stranger, False)):
            shown = (identity.key_path.read_bytes(), identity.certificate_path.read_bytes())
            credentials = grpc.ssl_channel_credentials(root, *shown)
            with grpc.secure_channel(daemon.address, credentials) as channel:
                call = pb_grpc.GRPCInferenceServiceStub(channel).ModelInfer.future(
                    double_request(), timeout=30
                )
                assert (call.code() is grpc.StatusCode.OK) == welcome
                assert (call.code() is grpc.StatusCode.UNAVAILABLE) == (not welcome)


def test_a_port_that_is_taken_is_an_error_with_a_code(tmp_path: Path) -> None:
    repository = put_double(tmp_path / "repository")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        flags = ("--repository", repository, "--front-ends", "2", "--no-metrics", "--port", port)
        ended = subprocess.run(command(*flags), capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_second_daemon_cannot_have_the_port(daemon: DaemonProcess, tmp_path: Path) -> None:
    elsewhere = tmp_path / "second"
    elsewhere.mkdir()
    for flags in ((), ("--front-ends", "1")):
        port = ("--port", str(daemon.grpc_port))
        with (
            pytest.raises(AssertionError, match="cannot listen on 127"),
            start_daemon(elsewhere, "--repository", tmp_path / "repository", *flags, *port),
        ):
            pass
    assert answers(daemon)
