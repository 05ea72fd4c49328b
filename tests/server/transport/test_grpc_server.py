from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from certificates import make_authority
from grpc_health.v1 import health

from protos import boulton_pb2, grpc_service_pb2
from server.config import Settings
from server.errors import ConfigError
from server.front_ends.port import KeptPort
from server.governing.operator_service import SERVICE_NAME as OPERATOR
from server.governing.operator_service import OperatorService
from server.inference.service import SERVICE_NAME as INFERENCE
from server.inference.service import InferenceService
from server.transport.grpc_server import CannotListen, GrpcServer, PortSettings, bracketed, register
from server.transport.ports import client_port, operator_port
from server.transport.security import ROLE_NEEDED
from server.transport.tls import TlsFiles
from server.wire.shared_regions import SharedRegions


class Recorder(grpc.aio.Server):
    """Stands in for a server and remembers the RPCs registered; reflection insists on the class."""

    add_insecure_port = add_secure_port = start = stop = wait_for_termination = None

    def __init__(self) -> None:
        self.methods: set[str] = set()

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        for handler in handlers:
            self.methods |= set(handler._method_handlers)

    def add_registered_method_handlers(
        self, service: str, handlers: dict[str, grpc.RpcMethodHandler]
    ) -> None:
        self.methods |= {f"/{service}/{name}" for name in handlers}


class FakeStream:
    answer = None


def test_the_authorisation_table_lists_exactly_the_rpcs_that_are_registered() -> None:
    recorder = Recorder()
    inference = InferenceService(None, None, None, FakeStream(), SharedRegions())
    services = {INFERENCE: inference.handler(), OPERATOR: OperatorService(lambda: None).handler()}
    register(recorder, services, health.aio.HealthServicer())
    assert recorder.methods == set(ROLE_NEEDED)


def test_the_services_register_every_rpc_that_their_proto_declares() -> None:
    inference = grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    operator = boulton_pb2.DESCRIPTOR.services_by_name["OperatorService"]
    for service in (inference, operator):
        assert {f"/{service.full_name}/{method.name}" for method in service.methods} <= set(ROLE_NEEDED)


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("[::1]", "[::1]"), ("localhost", "localhost")],
)
def test_ipv6_addresses_are_bracketed(host: str, shown: str) -> None:
    assert bracketed(host) == shown


def settings(**given: object) -> Settings:
    return Settings(repository=Path("models"), **given)


def test_the_operator_s_port_is_guarded_like_the_clients_unless_told_otherwise() -> None:
    tokens, others = Path("tokens"), Path("others")
    shared = settings(token_file=tokens, tls_cert=Path("c"), tls_key=Path("k"), tls_client_ca=Path("ca"))
    assert operator_port(shared).token_file == tokens
    assert operator_port(shared).tls == client_port(shared).tls == TlsFiles(Path("c"), Path("k"), Path("ca"))
    own = replace(shared, operator_token_file=others, operator_client_ca=Path("ours"))
    assert operator_port(own).token_file == others
    assert operator_port(own).tls == TlsFiles(Path("c"), Path("k"), Path("ours"))
    assert client_port(own).tls == client_port(shared).tls
    assert (operator_port(shared).token_flag, operator_port(shared).client_ca_flag) == (
        "--token-file",
        "--tls-client-ca",
    )


@pytest.mark.parametrize("name", ["operator_token_file", "operator_client_ca"])
async def test_a_file_of_the_operator_s_port_is_named_by_its_own_flag(tmp_path: Path, name: str) -> None:
    identity = make_authority(tmp_path, "server")
    files = {"tls_cert": identity.certificate_path, "tls_key": identity.key_path, name: tmp_path / "missing"}
    flag = "--" + name.replace("_", "-")
    with pytest.raises(ConfigError, match=f"{flag} {tmp_path}/missing cannot be read"):
        GrpcServer(operator_port(settings(port=0, **files)), {})


@pytest.mark.parametrize("host", ["a" * 300, "\udcff", "no such host"])
@pytest.mark.parametrize("listen", [lambda port: GrpcServer(port, {}), KeptPort])
async def test_a_host_that_is_no_name_is_refused(host: str, listen: Callable[[PortSettings], object]) -> None:
    with pytest.raises(CannotListen, match="choose others with --host and --port"):
        listen(client_port(settings(host=host, port=0)))


def test_the_operator_s_port_is_on_loopback_and_free_where_the_clients_port_is() -> None:
    assert (operator_port(settings()).host, operator_port(settings()).port) == ("127.0.0.1", 8003)
    assert operator_port(settings(host="0.0.0.0")).host == "127.0.0.1"  # noqa: S104
    assert operator_port(settings(port=0)).port == 0
    assert operator_port(settings(port=0, operator_port=9)).port == 9
