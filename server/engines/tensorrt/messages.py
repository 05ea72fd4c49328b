"""What TensorRT says while it works. It takes one logger a process and ignores any other, so there is one."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_LOG = logging.getLogger(__name__)
_KEPT = 20


class Messages:
    """Errors of the last piece of work, and the logger that TensorRT writes them to.

    Args:
        trt: the TensorRT module.
    """

    def __init__(self, trt: Any) -> None:  # noqa: ANN401  # the module has no types of its own
        self._errors: deque[str] = deque(maxlen=_KEPT)
        self._working = threading.RLock()
        self.logger = _make_logger(trt, self._errors)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Begin anew; one piece of work at a time, as builds sharing a GPU would spoil each other's times."""
        with self._working:
            self._errors.clear()
            yield

    def first_error(self) -> str:
        """The error that began it, without TensorRT's source positions; those that follow repeat it."""
        return next(iter(self._errors), "TensorRT gave no reason")

    def last_error(self) -> str:
        """The latest error, for calls that no piece of work encloses."""
        return self._errors[-1] if self._errors else "TensorRT gave no reason"


@cache
def messages_of(trt: Any) -> Messages:  # noqa: ANN401  # the module has no types of its own
    """Return the process's one collector for a TensorRT module."""
    return Messages(trt)


def _make_logger(trt: Any, errors: deque[str]) -> Any:  # noqa: ANN401  # the module has no types of its own
    severity = trt.ILogger.Severity

    class Logger(trt.ILogger):  # type: ignore[misc]  # TensorRT calls `log` of a subclass; the base has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, level: Any, text: str) -> None:  # noqa: ANN401
            if level in (severity.INTERNAL_ERROR, severity.ERROR):
                errors.append(_essence(text))
                _LOG.debug("%s", text)
            elif level == severity.WARNING:
                _LOG.debug("%s", text)

    return Logger()


def _essence(text: str) -> str:
    """`IBuilder::x: Error Code 4: API Usage Error (why. In f at /src/a.cpp:1)` -> `why`."""
    inner = text.partition(" (")[2] if "Error Code" in text else text
    return (inner or text).rpartition(" In ")[0].strip(" .") or text.strip()
