"""The protocol client against a server that does what it is told, with and without TLS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import certificates
import grpc
import pytest
import scripted_server

from server.client.client import OipClient
from server.client.endpoint import Endpoint, ServerRefused, ServerUnreachable, TlsIdentity

TOKEN = "abcdefghijklmnop"  # noqa: S105 - a test's own


@pytest.fixture
def authority(tmp_path: Path) -> certificates.Identity:
    return certificates.make_authority(tmp_path, "authority")


@pytest.fixture
def identity(tmp_path: Path, authority: certificates.Identity) -> Callable[[str], certificates.Identity]:
    return lambda name: certificates.make_identity(tmp_path, name, authority)


def credentials(
    own: certificates.Identity, client_authority: certificates.Identity | None = None
) -> grpc.ServerCredentials:
    pair = (own.key_path.read_bytes(), own.certificate_path.read_bytes())
    authority = client_authority.certificate_path.read_bytes() if client_authority else None
    return grpc.ssl_server_credentials([pair], authority, require_client_auth=authority is not None)


def ask(endpoint: Endpoint) -> str:
    with OipClient(endpoint) as client:
        return client.model("net").platform


def test_a_model_is_described_as_one_item() -> None:
    with scripted_server.serving(scripted_server.Script()) as address, OipClient(Endpoint(address)) as client:
        model = client.model("net")

    assert (model.max_batch, model.only_input.datatype, model.only_input.shape) == (16, "UINT8", (4, 4, 3))
    assert model.outputs[0].shape == (3,)


def test_without_a_configuration_the_leading_dimension_tells_of_batches() -> None:
    script = scripted_server.Script(has_config=False)
    with scripted_server.serving(script) as address, OipClient(Endpoint(address)) as client:
        assert client.model("net").only_input.shape == (4, 4, 3)
        assert client.model("net").max_batch > 0


def test_the_token_goes_with_every_call() -> None:
    script = scripted_server.Script(token=TOKEN)
    with scripted_server.serving(script) as address:
        assert ask(Endpoint(address, token=TOKEN)) == "scripted"
        with pytest.raises(ServerRefused, match="UNAUTHENTICATED: this server needs a token") as refused:
            ask(Endpoint(address))

    assert refused.value.code is grpc.StatusCode.UNAUTHENTICATED


def test_tls_with_the_right_authority(
    authority: certificates.Identity, identity: Callable[[str], certificates.Identity]
) -> None:
    trusted = TlsIdentity(authority.certificate_path.read_bytes())
    with scripted_server.serving(scripted_server.Script(), credentials(identity("server"))) as address:
        assert ask(Endpoint(address, trusted)) == "scripted"


def test_mutual_tls(
    authority: certificates.Identity, identity: Callable[[str], certificates.Identity]
) -> None:
    own = identity("client")
    ca = authority.certificate_path.read_bytes()
    known = TlsIdentity(ca, own.certificate_path.read_bytes(), own.key_path.read_bytes())
    served = credentials(identity("server"), authority)
    with scripted_server.serving(scripted_server.Script(), served) as address:
        assert ask(Endpoint(address, known)) == "scripted"
        with pytest.raises(ServerUnreachable, match="--tls-ca"):
            ask(Endpoint(address, TlsIdentity(ca)))


def test_another_authority_is_not_trusted(
    tmp_path: Path, identity: Callable[[str], certificates.Identity]
) -> None:
    stranger = certificates.make_authority(tmp_path, "stranger")
    trusted = TlsIdentity(stranger.certificate_path.read_bytes())
    said = pytest.raises(ServerUnreachable, match="check the address, that it serves TLS, and --tls-ca")
    with scripted_server.serving(scripted_server.Script(), credentials(identity("server"))) as address, said:
        ask(Endpoint(address, trusted))


def test_a_busy_server_is_not_said_to_be_down() -> None:
    script = scripted_server.Script(fail=lambda number: (grpc.StatusCode.UNAVAILABLE, "the queue is full"))
    with scripted_server.serving(script) as address, OipClient(Endpoint(address)) as client:
        request = scripted_server.pb.ModelInferRequest(model_name="net")
        request.outputs.add(name="scores").parameters["classification"].int64_param = 1
        with pytest.raises(ServerRefused, match="answered UNAVAILABLE: the queue is full"):
            client.classify(request, 1)
