"""What to do about batches that a model fails on."""

from __future__ import annotations

import logging
import math

from server.errors import CudaLost

_LONGEST_REASON = 500
_TRACE_EVERY_S = 60.0  # a client may send what the model fails on again and again
_HOPELESS = 32  # failures in a row after which no batch is run again: it is the model, not a request

_LOG = logging.getLogger(__name__)


class Failures:
    """Tells a request that the model cannot take from a model that takes none, and logs without end."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._next_trace_s = -math.inf

    def end(self) -> None:
        """Learn that a batch was answered."""
        self._in_a_row = 0

    def may_run_again(self, error: BaseException) -> bool:
        """Learn that a batch failed; whether parts of it may do better."""
        self._in_a_row += 1
        for_good = isinstance(error, CudaLost) or not isinstance(error, Exception)
        return not for_good and self._in_a_row <= _HOPELESS

    def log(self, images: int, error: BaseException, now_s: float) -> str:
        """Log a batch that failed for good, now and then with its trace; return the reason in words.

        Args:
            images: of the batch.
            error: what it failed with.
            now_s: seconds, monotonic.
        """
        reason = f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
        trace = error if now_s >= self._next_trace_s else None
        if trace is not None:
            self._next_trace_s = now_s + _TRACE_EVERY_S
        _LOG.error("a batch of %d images failed: %r", images, reason, exc_info=trace)
        return reason
