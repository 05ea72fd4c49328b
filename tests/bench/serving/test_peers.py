"""A peer that breaks its connection is measured again, and that is counted; other faults are not hidden."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import grpc
import pytest

from bench.serving import peers


def broken(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "Stream removed")


def measuring(monkeypatch: pytest.MonkeyPatch, outcomes: list[float | Exception]) -> None:
    left: Iterator[float | Exception] = iter(outcomes)

    def measure(server: object, load: object) -> float:
        outcome = next(left)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(peers, "_requests_per_s", measure)


def patient(breaks: Counter[str]) -> Callable[..., float]:
    return peers._patient("pytriton", breaks)


def test_a_broken_connection_is_measured_again_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    breaks: Counter[str] = Counter()
    measuring(monkeypatch, [broken(grpc.StatusCode.UNAVAILABLE), 7.0])
    assert patient(breaks)(None, None) == 7.0
    assert breaks == {"pytriton": 1}


def test_a_peer_that_always_breaks_fails_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, [broken(grpc.StatusCode.UNAVAILABLE)] * peers.ATTEMPTS)
    with pytest.raises(grpc.RpcError):
        patient(Counter())(None, None)


def test_another_error_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    breaks: Counter[str] = Counter()
    measuring(monkeypatch, [broken(grpc.StatusCode.INVALID_ARGUMENT), 7.0])
    with pytest.raises(grpc.RpcError):
        patient(breaks)(None, None)
    assert not breaks
