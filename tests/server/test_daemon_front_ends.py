"""`boulton serve --front-ends`: what an operator sees of the processes that speak gRPC for the daemon."""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from daemon_process import DaemonProcess, put_double, start_daemon

from bench.serving.processes import family
from protos import grpc_service_pb2 as pb
from protos import grpc_service_pb2_grpc as pb_grpc

PATIENCE_S = 30.0


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


def answers(daemon: DaemonProcess) -> bool:
    x = np.arange(4, dtype=np.float32).reshape(1, 4)
    request = pb.ModelInferRequest(model_name="double", raw_input_contents=[x.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=(1, 4))
    with grpc.insecure_channel(daemon.address) as channel:
        answer = pb_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30)
    return answer.raw_output_contents[0] == (2 * x).tobytes()


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


def test_a_terminal_s_interrupt_reaches_all_and_ends_them_in_order(daemon: DaemonProcess) -> None:
    for process in (*front_ends(daemon), daemon.process.pid):
        os.kill(process, signal.SIGINT)
    assert daemon.end() == 0
    assert "front end has ended" not in daemon.text


def test_none_outlives_a_daemon_that_is_killed(daemon: DaemonProcess) -> None:
    started = front_ends(daemon)
    daemon.process.kill()
    daemon.process.wait(PATIENCE_S)
    until(lambda: not any(alive(process) for process in started))


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
