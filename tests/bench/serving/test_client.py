from __future__ import annotations

import os

import grpc
import pytest

from bench.serving.client import Load, measure
from bench.serving.messages import infer_request
from bench.serving.networks import INPUT, images
from bench.serving.processes import Server, free_port
from bench.serving.subjects import ECHO_FORMS, echoes
from bench.serving.throughput import divide_cores


@pytest.mark.parametrize("form", ECHO_FORMS)
def test_every_echo_server_is_measured(form: str) -> None:
    message = infer_request("any", INPUT, images("UINT8", 1))
    with echoes([form]) as servers:
        found = measure(servers[form], Load([message] * 4, seconds=0.3, images=2))
    assert found.requests > 0
    assert found.seconds == pytest.approx(0.3, rel=0.5)
    assert found.images_per_s == pytest.approx(2 * found.requests_per_s)


def test_a_request_that_fails_fails_the_measurement() -> None:
    """Rates of a server that does not answer would be worthless."""
    nobody = Server("nobody", os.getpid(), f"127.0.0.1:{free_port()}")
    with pytest.raises(grpc.RpcError) as caught:
        measure(nobody, Load([b""], seconds=0.3))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("cores", "server", "client"),
    [([0, 1], [0], [1]), ([3], [3], [3]), ([0, 1, 2], [0], [1, 2]), ([0, 1, 2, 3], [0, 1], [2, 3])],
)
def test_cores_are_divided(cores: list[int], server: list[int], client: list[int]) -> None:
    assert divide_cores(cores) == (server, client)
