"""Waiting for a call into a driver that may never return."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def within(limit_s: float, call: Callable[[], T]) -> T:
    """Return what a call returns, or raise what it raises.

    Raises:
        TimeoutError: it takes longer. It goes on in a thread that nobody can end, and that does not keep the
            process from ending.
    """
    done: Future[T] = Future()

    def work() -> None:
        try:
            done.set_result(call())
        except Exception as error:
            done.set_exception(error)

    threading.Thread(target=work, name="driver", daemon=True).start()
    return done.result(limit_s)
