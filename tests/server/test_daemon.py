"""`boulton serve` as its users run it: started, asked, and told to stop."""

from __future__ import annotations

import json
import resource
import signal
import socket
import subprocess
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest
from certificates import make_authority, make_identity
from daemon_process import command, put_double, put_profile, start_daemon
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos import grpc_service_pb2 as pb
from protos import grpc_service_pb2_grpc as pb_grpc
from server.config import Settings
from server.daemon import Daemon
from server.errors import ConfigError
from server.transport import ports
from server.transport.security import ROLE_NEEDED

TOKENS = "client client-token-0123456789\noperator operator-token-0123456789\n"
OPERATOR = (("authorization", "Bearer operator-token-0123456789"),)
CLIENT = (("authorization", "Bearer client-token-0123456789"),)


def request(rows: int = 1, name: str = "double") -> tuple[pb.ModelInferRequest, np.ndarray]:
    x = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
    message = pb.ModelInferRequest(model_name=name, raw_input_contents=[x.tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=x.shape)
    return message, x


def check_answer(channel: grpc.Channel) -> None:
    message, x = request(3)
    answer = pb_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=30)
    assert np.array_equal(np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(3, 4), 2 * x)


def fails(*flags: str | Path) -> str:
    """Run a daemon that must not start; return what it says."""
    done = subprocess.run(command(*flags), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return next(line for line in done.stderr.splitlines() if line.startswith("boulton: "))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return put_double(tmp_path / "repository")


@pytest.mark.usefixtures("ways")
def test_it_serves_and_says_where(tmp_path: Path, repository: Path) -> None:
    with start_daemon(tmp_path, "--repository", repository) as daemon:
        assert daemon.ready_line.startswith(
            f"ready: gRPC on 127.0.0.1:{daemon.grpc_port}, metrics on http://"
        )
        with grpc.insecure_channel(daemon.address) as channel:
            check_answer(channel)
            status = health_pb2_grpc.HealthStub(channel)
            for service in ("", "inference.GRPCInferenceService"):
                answer = status.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with grpc.insecure_channel(daemon.operator_address) as channel:
            status = health_pb2_grpc.HealthStub(channel)
            for service in ("", "boulton.v1.OperatorService"):
                answer = status.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{daemon.metrics_port}/metrics", timeout=30)
        assert 'nv_inference_count{model="double",version="1"} 3.0' in metrics.read().decode()


def test_the_ready_file_is_there_exactly_while_the_server_is_ready(tmp_path: Path, repository: Path) -> None:
    ready = tmp_path / "ready.json"
    ready.write_text("left over by a server that was killed")
    with start_daemon(tmp_path, "--repository", repository, "--ready-file", ready) as daemon:
        facts = json.loads(ready.read_text())
        assert facts == {
            "grpc_port": daemon.grpc_port,
            "metrics_port": daemon.metrics_port,
            "operator_port": daemon.operator_port,
            "pid": daemon.process.pid,
        }
        daemon.tell(signal.SIGTERM)
        assert daemon.end() == 0
        assert not ready.exists()


def test_without_metrics(tmp_path: Path, repository: Path) -> None:
    with start_daemon(tmp_path, "--repository", repository, "--no-metrics") as daemon:
        assert daemon.metrics_port is None
        assert daemon.ready_line.endswith("metrics on none\n")


def test_reflection_names_every_service(tmp_path: Path, repository: Path) -> None:
    with start_daemon(tmp_path, "--repository", repository) as daemon:
        everywhere = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
        assert reflected_services(daemon.address) == {*everywhere, "inference.GRPCInferenceService"}
        assert reflected_services(daemon.operator_address) == {*everywhere, "boulton.v1.OperatorService"}


def reflected_services(address: str) -> set[str]:
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        (answer,) = stub.ServerReflectionInfo(iter([ask]), timeout=30)
    return {service.name for service in answer.list_services_response.service}


def test_a_second_daemon_on_the_port_fails_and_says_why(tmp_path: Path, repository: Path) -> None:
    with start_daemon(tmp_path, "--repository", repository) as daemon:
        said = fails("--repository", repository, "--port", str(daemon.grpc_port), "--no-metrics")
        assert f"cannot listen on 127.0.0.1:{daemon.grpc_port}: the port is in use" in said
        said = fails("--repository", repository, "--port", "0", "--metrics-port", str(daemon.metrics_port))
        assert f"127.0.0.1:{daemon.metrics_port}: the port is in use" in said
        taken = ("--port", "0", "--no-metrics", "--operator-port", str(daemon.operator_port))
        said = fails("--repository", repository, *taken)
        assert f"cannot listen on 127.0.0.1:{daemon.operator_port}" in said
        assert "--operator-port" in said
        with grpc.insecure_channel(daemon.address) as channel:
            check_answer(channel)


def test_what_cannot_be_served_is_said(tmp_path: Path, repository: Path) -> None:
    ports = ("--port", "0", "--no-metrics")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no model that can be read is in" in fails("--repository", empty, *ports)
    assert "cannot be read" in fails("--repository", tmp_path / "nowhere", *ports)
    assert "model 'triple' cannot be served" in fails("--repository", repository, "--model", "triple", *ports)
    assert "--govern triple: no such model" in fails("--repository", repository, "--govern", "triple", *ports)
    assert "--targets: " in fails("--repository", repository, "--targets", tmp_path / "none.toml", *ports)
    simulated = ("--engine", "simulated", "--gpu")
    assert "no GPU profile 'abacus'" in fails("--repository", repository, *simulated, "abacus", *ports)
    assert "has no model 'double'" in fails("--repository", repository, *simulated, "v100", *ports)
    (repository / "broken" / "1").mkdir(parents=True)
    (repository / "broken" / "1" / "model.onnx").write_bytes(b"not ONNX")
    assert "model 'broken' cannot be served" in fails("--repository", repository, *ports)


def test_only_the_models_named_are_served(tmp_path: Path, repository: Path) -> None:
    put_double(repository, "other")
    with (
        start_daemon(tmp_path, "--repository", repository, "--model", "other") as daemon,
        grpc.insecure_channel(daemon.address) as channel,
    ):
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ModelReady(pb.ModelReadyRequest(name="other"), timeout=30).ready
        assert not stub.ModelReady(pb.ModelReadyRequest(name="double"), timeout=30).ready


@pytest.mark.usefixtures("ways")
def test_several_models_are_not_governed_unless_one_is_named(tmp_path: Path, repository: Path) -> None:
    put_double(repository, "other")
    with start_daemon(tmp_path, "--repository", repository, "--max-batch", "8") as daemon:
        pass
    assert "model 'other' runs at fixed settings: batch <= 8" in daemon.text
    assert "--govern NAME" in daemon.text
    with start_daemon(tmp_path, "--repository", repository, "--govern", "other") as daemon:
        pass
    assert "governing model 'other' on cpu-package" in daemon.text
    assert "model 'double' runs at fixed settings" in daemon.text


def test_settings_may_come_from_a_file(tmp_path: Path, repository: Path) -> None:
    config = tmp_path / "boulton.toml"
    config.write_text(f'repository = "{repository}"\nmodel = ["double"]\nlog_format = "json"\n')
    with start_daemon(tmp_path, "--config", config) as daemon:
        pass
    assert '"message"' in daemon.log[0]


@pytest.mark.usefixtures("ways")
def test_messages_over_the_limit_are_refused_also_when_they_are_small_on_the_wire(
    tmp_path: Path, repository: Path
) -> None:
    with start_daemon(tmp_path, "--repository", repository, "--max-message-mib", "1") as daemon:
        bomb = pb.ModelInferRequest(model_name="double", raw_input_contents=[bytes(8 << 20)])
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            with grpc.insecure_channel(daemon.address, compression=compression) as channel:
                with pytest.raises(grpc.RpcError) as refused:
                    pb_grpc.GRPCInferenceServiceStub(channel).ModelInfer(bomb, timeout=30)
                assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                check_answer(channel)


@pytest.mark.usefixtures("ways")
def test_tls_by_flags(tmp_path: Path, repository: Path) -> None:
    authority = make_authority(tmp_path, "authority")
    server = make_identity(tmp_path, "server", authority)
    flags = ("--tls-cert", server.certificate_path, "--tls-key", server.key_path)
    with start_daemon(tmp_path, "--repository", repository, *flags) as daemon:
        credentials = grpc.ssl_channel_credentials(authority.certificate_path.read_bytes())
        with grpc.secure_channel(daemon.address, credentials) as channel:
            check_answer(channel)


@pytest.mark.usefixtures("ways")
def test_every_rpc_asks_for_its_token(tmp_path: Path, repository: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(TOKENS)
    with (
        start_daemon(tmp_path, "--repository", repository, "--token-file", tokens) as daemon,
        grpc.insecure_channel(daemon.address) as channel,
    ):
        for method, role in ROLE_NEEDED.items():
            # Bytes that no message type can parse: whoever is let in is told so by the method itself.
            assert (code_of(channel, method, ()) is grpc.StatusCode.UNAUTHENTICATED) == (role > 0), method
            assert (code_of(channel, method, CLIENT) is grpc.StatusCode.PERMISSION_DENIED) == (role > 1), (
                method
            )
            assert code_of(channel, method, OPERATOR) not in {
                grpc.StatusCode.UNAUTHENTICATED,
                grpc.StatusCode.PERMISSION_DENIED,
            }
        with pytest.raises(grpc.RpcError):
            check_answer(channel)


def code_of(channel: grpc.Channel, method: str, metadata: tuple[tuple[str, str], ...]) -> grpc.StatusCode:
    call = channel.stream_stream(method)(iter([b"\xff"]), metadata=metadata, timeout=30)
    try:
        for _ in call:
            call.cancel()
    except grpc.RpcError:
        pass
    return call.code()


def test_a_simulated_gpu_answers_zeros_and_says_so(tmp_path: Path, repository: Path) -> None:
    flags = ("--engine", "simulated", "--gpu", put_profile(tmp_path, batch_ms=1.0))
    with (
        start_daemon(tmp_path, "--repository", repository, *flags) as daemon,
        grpc.insecure_channel(daemon.address) as channel,
    ):
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(request()[0], timeout=30)
        assert not np.frombuffer(answer.raw_output_contents[0], np.float32).any()
        metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="double"), timeout=30)
        assert metadata.platform == "boulton_simulated"
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{daemon.metrics_port}/metrics", timeout=30)
        labels = '{gpu_uuid="simulated-test",model="double",version="1"}'
        assert f"nv_inference_exec_count{labels} 1.0" in metrics.read().decode()
    assert "simulated-test is simulated: times and energy are modelled" in daemon.text


@pytest.mark.parametrize("front_ends", ["0", "1"])
def test_an_address_of_another_machine_cannot_be_bound(repository: Path, front_ends: str) -> None:
    said = fails(
        "--repository", repository, "--host", "192.0.2.1", "--no-metrics", "--front-ends", front_ends
    )
    assert "cannot listen on 192.0.2.1:8001" in said


@pytest.mark.usefixtures("ways")
def test_an_ipv6_address_may_be_bound(tmp_path: Path, repository: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with start_daemon(tmp_path, "--repository", repository, "--host", "::1") as daemon:
        assert daemon.ready_line.startswith("ready: gRPC on [::1]:")
        with grpc.insecure_channel(f"[::1]:{daemon.grpc_port}") as channel:
            check_answer(channel)


def test_the_operator_s_port_may_have_an_authority_of_its_own(tmp_path: Path, repository: Path) -> None:
    authority, operators = make_authority(tmp_path, "authority"), make_authority(tmp_path, "operators")
    server, operator = make_identity(tmp_path, "server", authority), make_identity(tmp_path, "me", operators)
    flags = ("--tls-cert", server.certificate_path, "--tls-key", server.key_path)
    trusted = authority.certificate_path.read_bytes()
    mine = operator.key_path.read_bytes(), operator.certificate_path.read_bytes()
    known = grpc.ssl_channel_credentials(trusted, *mine)
    unknown = grpc.ssl_channel_credentials(trusted)
    own = ("--operator-client-ca", operators.certificate_path)
    with start_daemon(tmp_path, "--repository", repository, *flags, *own) as daemon:
        with grpc.secure_channel(daemon.address, unknown) as channel:
            check_answer(channel)
        with grpc.secure_channel(daemon.operator_address, known) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            assert health.Check(health_pb2.HealthCheckRequest(), timeout=30).status
        with grpc.secure_channel(daemon.operator_address, unknown) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            with pytest.raises(grpc.RpcError) as refused:
                health.Check(health_pb2.HealthCheckRequest(), timeout=30)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_where_8003_is_taken_the_operator_gets_another_port_unless_it_was_asked_for(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(ports, "OPERATOR_PORT", port)
        server = Daemon(Settings(repository=repository))._operator_server()
        assert server.port not in (0, port)
        assert any(
            f"the operator's port {port} is in use; it is {server.port} instead" in m for m in caplog.messages
        )
        await server.stop(None)
        with pytest.raises(ConfigError, match="--operator-port"):
            Daemon(Settings(repository=repository, operator_port=port))._operator_server()


def test_whoever_fails_to_shake_hands_writes_nothing_into_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    identity = make_authority(tmp_path, "server")
    tls = ("--tls-cert", identity.certificate_path, "--tls-key", identity.key_path)
    flags = ("--repository", put_double(tmp_path / "models"), "--log-format", "json", *tls)
    with start_daemon(tmp_path, *flags) as daemon:
        with socket.create_connection(("127.0.0.1", daemon.grpc_port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while stranger.recv(4096):
                pass
        daemon.tell(signal.SIGTERM)
        assert daemon.end() == 0
    assert all(json.loads(line)["level"] in ("info", "warning") for line in daemon.log)


def test_clients_that_say_nothing_shut_nobody_out(tmp_path: Path) -> None:
    """Shells and systemd allow a program 1024 open files, connections included; here it is fewer."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))
    try:
        exits = ExitStack()
        daemon = exits.enter_context(start_daemon(tmp_path, "--repository", put_double(tmp_path / "models")))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    with exits:
        for _ in range(200):
            exits.enter_context(socket.create_connection(("127.0.0.1", daemon.grpc_port)))
        with grpc.insecure_channel(daemon.address) as channel:
            check_answer(channel)
        url = f"http://127.0.0.1:{daemon.metrics_port}/metrics"
        assert b"nv_inference_count" in urllib.request.urlopen(url, timeout=10).read()
