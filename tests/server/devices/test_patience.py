from __future__ import annotations

import threading

import pytest

from server.devices.patience import within
from server.errors import ConfigError

LONG_S = 60.0


def test_what_a_call_returns_is_returned() -> None:
    assert within(LONG_S, lambda: 7) == 7


def test_what_a_call_raises_is_raised() -> None:
    def refuse() -> None:
        raise ConfigError("no")

    with pytest.raises(ConfigError, match="no"):
        within(LONG_S, refuse)


def test_a_call_that_hangs_is_not_waited_for_and_keeps_no_process_alive() -> None:
    answer = threading.Event()
    threads: list[threading.Thread] = []

    def hang() -> None:
        threads.append(threading.current_thread())
        answer.wait(LONG_S)

    with pytest.raises(TimeoutError):
        within(0.05, hang)
    assert threads[0].daemon
    answer.set()
    threads[0].join(LONG_S)
    assert not threads[0].is_alive()
