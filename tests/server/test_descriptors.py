"""The limit of open files and connections: raised as far as may be, never lowered."""

from __future__ import annotations

import resource

import pytest

from server.descriptors import ENOUGH, allow_many


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The limits of a process, the present ones last."""
    held = [(1024, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _what: held[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _what, pair: held.append(pair))
    return held


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ((1024, 4096), (4096, 4096), "4096 at once"),
        ((1024, 1 << 20), (ENOUGH, 1 << 20), "65536 at once"),
        ((1024, resource.RLIM_INFINITY), (ENOUGH, resource.RLIM_INFINITY), "65536 at once"),
        ((1 << 20, 1 << 20), (1 << 20, 1 << 20), "1048576 at once"),
        ((resource.RLIM_INFINITY,) * 2, (resource.RLIM_INFINITY,) * 2, "no limit"),
    ],
)
def test_it_is_raised_as_far_as_may_be(
    limits: list[tuple[int, int]], before: tuple[int, int], after: tuple[int, int], said: str
) -> None:
    limits.append(before)
    assert allow_many() == f"connections and files: {said}"
    assert limits[-1] == after


def test_a_sandbox_that_forbids_it_is_no_failure(
    limits: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(*_: object) -> None:
        raise PermissionError("not here")

    monkeypatch.setattr(resource, "setrlimit", forbid)
    assert allow_many() == "connections and files: 1024 at once"
