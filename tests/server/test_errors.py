from __future__ import annotations

import subprocess
import sys

import grpc
import pytest

from server.errors import Internal, InvalidArgument, NotFound, RequestError, Unavailable


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (RequestError, grpc.StatusCode.UNKNOWN),
        (InvalidArgument, grpc.StatusCode.INVALID_ARGUMENT),
        (NotFound, grpc.StatusCode.NOT_FOUND),
        (Unavailable, grpc.StatusCode.UNAVAILABLE),
        (Internal, grpc.StatusCode.INTERNAL),
    ],
)
def test_kinds_and_errors_have_their_status(kind: type[RequestError], status: grpc.StatusCode) -> None:
    assert kind.code is status
    assert kind("why").code is status


def test_every_kind_has_a_status_of_its_own() -> None:
    kinds = RequestError.__subclasses__()
    assert len({kind.code for kind in kinds}) == len(kinds)


def test_commands_that_serve_nobody_do_without_grpc() -> None:
    code = "import sys, server.errors, bench.predict.command; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
