"""What happens to clients when the daemon is told to stop."""

from __future__ import annotations

import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from child_process import child
from daemon_process import DaemonProcess, command, put_double, put_profile, start_daemon
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos import boulton_pb2, boulton_pb2_grpc
from protos import grpc_service_pb2 as pb
from protos import grpc_service_pb2_grpc as pb_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


pytestmark = pytest.mark.usefixtures("ways")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return put_double(tmp_path / "repository")


@contextmanager
def slow_daemon(
    directory: Path, repository: Path, batch_ms: float, *flags: str
) -> Iterator[tuple[DaemonProcess, pb_grpc.GRPCInferenceServiceStub]]:
    """A daemon whose GPU takes `batch_ms` for each request, one after the other."""
    simulated = ("--engine", "simulated", "--gpu", put_profile(directory, batch_ms), "--max-batch", "1")
    with (
        start_daemon(directory, "--repository", repository, *simulated, "--no-govern", *flags) as daemon,
        grpc.insecure_channel(daemon.address) as channel,
    ):
        yield daemon, pb_grpc.GRPCInferenceServiceStub(channel)


def request(request_id: str = "") -> pb.ModelInferRequest:
    contents = [np.zeros((1, 4), np.float32).tobytes()]
    message = pb.ModelInferRequest(model_name="double", id=request_id, raw_input_contents=contents)
    message.inputs.add(name="x", datatype="FP32", shape=(1, 4))
    return message


def wait_until_queued(daemon: DaemonProcess, requests: int) -> None:
    """Return once that many requests wait behind the one that runs and the one that is staged."""
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{daemon.metrics_port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        waiting = next(line for line in text.splitlines() if line.startswith("nv_inference_pending_request"))
        if float(waiting.rpartition(" ")[2]) >= requests:
            return


def test_every_request_in_flight_is_answered(tmp_path: Path, repository: Path) -> None:
    with slow_daemon(tmp_path, repository, 300.0) as (daemon, stub):
        calls = [stub.ModelInfer.future(request(str(index)), timeout=60) for index in range(8)]
        wait_until_queued(daemon, 6)
        daemon.tell(signal.SIGTERM)
        assert [call.result().id for call in calls] == [str(index) for index in range(8)]
        assert daemon.end() == 0
    assert "Traceback" not in daemon.text


def test_every_request_of_a_stream_is_answered(tmp_path: Path, repository: Path) -> None:
    with slow_daemon(tmp_path, repository, 300.0) as (daemon, stub):
        answers = stub.ModelStreamInfer(iter([request(str(index)) for index in range(8)]), timeout=60)
        wait_until_queued(daemon, 6)
        daemon.tell(signal.SIGTERM)
        ids = [answer.infer_response.id for answer in answers if not answer.error_message]
        assert ids == [str(index) for index in range(8)]
        assert daemon.end() == 0


def test_new_requests_are_unavailable_while_the_old_ones_are_finished(
    tmp_path: Path, repository: Path
) -> None:
    with slow_daemon(tmp_path, repository, 1000.0) as (daemon, stub):
        olds = [stub.ModelInfer.future(request(f"old {index}"), timeout=60) for index in range(4)]
        wait_until_queued(daemon, 2)
        with grpc.insecure_channel(daemon.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            states = health.Watch(health_pb2.HealthCheckRequest(), timeout=60)
            assert next(states).status == SERVING
            daemon.tell(signal.SIGTERM)
            assert next(states).status == NOT_SERVING
            assert not stub.ServerReady(pb.ServerReadyRequest(), timeout=30).ready
            with pytest.raises(grpc.RpcError) as refused:
                stub.ModelInfer(request("new"), timeout=30)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert [old.result().id for old in olds] == [f"old {index}" for index in range(4)]
        assert daemon.end() == 0


def test_requests_are_served_during_the_pause_for_load_balancers(tmp_path: Path, repository: Path) -> None:
    with (
        slow_daemon(tmp_path, repository, 1.0, "--shutdown-pause-s", "2") as (daemon, stub),
        grpc.insecure_channel(daemon.address) as channel,
    ):
        states = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(states).status == SERVING
        daemon.tell(signal.SIGTERM)
        assert next(states).status == NOT_SERVING
        assert stub.ModelInfer(request("late"), timeout=30).id == "late"
        assert stub.ServerLive(pb.ServerLiveRequest(), timeout=30).live
        assert not stub.ServerReady(pb.ServerReadyRequest(), timeout=30).ready
        assert daemon.end() == 0


def test_requests_that_outlast_the_limit_are_given_up(tmp_path: Path, repository: Path) -> None:
    with slow_daemon(tmp_path, repository, 600_000.0, "--drain-timeout-s", "0.3") as (daemon, stub):
        calls = [stub.ModelInfer.future(request(), timeout=60) for _ in range(3)]
        wait_until_queued(daemon, 1)
        daemon.tell(signal.SIGTERM)
        assert {call.exception().code() for call in calls} == {grpc.StatusCode.UNAVAILABLE}
        assert daemon.end() == 0
    assert "0.3 s" in daemon.text


def test_streams_that_nobody_ends_do_not_hold_up_the_end(tmp_path: Path, repository: Path) -> None:
    flags = ("--repository", repository)
    with (
        start_daemon(tmp_path, *flags) as daemon,
        grpc.insecure_channel(daemon.address) as channel,
        grpc.insecure_channel(daemon.operator_address) as operator,
    ):
        watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watched).status == SERVING
        decisions = boulton_pb2_grpc.OperatorServiceStub(operator).WatchDecisions(
            boulton_pb2.WatchDecisionsRequest()
        )
        assert next(decisions).model == "double"
        daemon.tell(signal.SIGTERM)
        assert daemon.end() == 0


def test_the_operating_point_is_restored(tmp_path: Path, repository: Path) -> None:
    simulated = ("--engine", "simulated", "--gpu", put_profile(tmp_path, 1.0))
    with start_daemon(tmp_path, "--repository", repository, *simulated) as daemon:
        daemon.tell(signal.SIGINT)
        assert daemon.end() == 0
    assert "restored: batch <= 64" in daemon.text


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path, repository: Path) -> None:
    with (
        slow_daemon(tmp_path, repository, 600_000.0) as (daemon, stub),
        grpc.insecure_channel(daemon.address) as channel,
    ):
        call = stub.ModelInfer.future(request(), timeout=60)
        states = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(states).status == SERVING
        daemon.tell(signal.SIGTERM)
        assert next(states).status == NOT_SERVING
        daemon.tell(signal.SIGTERM)
        assert daemon.end() == 128 + signal.SIGTERM
        assert call.exception() is not None


def test_a_signal_while_models_are_loaded_ends_the_start(tmp_path: Path, repository: Path) -> None:
    for index in range(400):
        put_double(repository, f"double{index}")
    words = command("--repository", repository, "--port", "0", "--no-metrics")
    with child(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "loaded" in line:
                process.send_signal(signal.SIGTERM)
                break
        said, log = process.communicate(timeout=60)
    assert process.returncode == 0
    assert not said
    assert "Traceback" not in log
