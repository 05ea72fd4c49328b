"""What one generator process measured: counted while running, a value afterwards."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

OK = "OK"
DROPPED = "DROPPED"
UNANSWERED = "UNANSWERED"
MAX_MESSAGE_CHARS = 300


@dataclass(frozen=True, slots=True)
class Failures:
    """Requests that failed in one way, and the first message."""

    requests: int
    images: int
    message: str


@dataclass(frozen=True, slots=True)
class WorkerResult:
    """What one process measured.

    Args:
        latency_s: of each answered request.
        lag_s: open loop: how much later than due each request was sent.
        images: answered.
        images_late: answered after the SLO.
        failures: by status code, `DROPPED` (not sent: too many under way) or `UNANSWERED`.
        span_s: the time that the answers took, from the start of measuring.
        cpu_share: of one core, used by this process.
        max_in_flight: requests that this process would have had under way at most.
        interrupted: whether it was ended early.
    """

    latency_s: NDArray[np.float64]
    lag_s: NDArray[np.float64]
    images: int
    images_late: int
    failures: dict[str, Failures]
    span_s: float
    cpu_share: float
    max_in_flight: int
    interrupted: bool = False


@dataclass(slots=True)
class Recorder:
    """Counts requests. In an open loop those due in the window count, in a closed loop those answered in it.

    Args:
        start_s: when the window starts.
        end_s: when it ends; brought forward when the run is interrupted.
        open_loop: see above.
        slo_s: beyond it an answer is late.
    """

    start_s: float
    end_s: float
    open_loop: bool
    slo_s: float
    answered: int = 0
    failed: int = 0
    images: int = 0
    images_late: int = 0
    last_s: float = 0.0
    latency_s: array[float] = field(default_factory=lambda: array("d"))
    lag_s: array[float] = field(default_factory=lambda: array("d"))
    requests: Counter[str] = field(default_factory=Counter)
    failed_images: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)

    def answer(self, due_s: float, done_s: float, images: int) -> None:
        """Count an answered request."""
        self.answered += 1
        if not self._counts(due_s, done_s):
            return
        latency_s = done_s - due_s
        self.latency_s.append(latency_s)
        self.images += images
        self.images_late += images if latency_s > self.slo_s else 0
        self.last_s = max(self.last_s, done_s)

    def failure(self, due_s: float, done_s: float, images: int, code: str, message: str) -> None:
        """Count a request that failed."""
        self.failed += 1
        if self._counts(due_s, done_s):
            self._fail(images, code, message)

    def unanswered(self, due_s: float, images: int) -> None:
        """Count a request that had no answer when the wait for the last ones ended."""
        self.failed += 1
        if not self.open_loop or self._counts(due_s, due_s):
            self._fail(images, UNANSWERED, "no answer by the end of the run")

    def sent(self, due_s: float, sent_s: float) -> None:
        """Note how punctually a request was sent."""
        if self._counts(due_s, sent_s):
            self.lag_s.append(max(0.0, sent_s - due_s))

    def _counts(self, due_s: float, done_s: float) -> bool:
        return self.start_s <= (due_s if self.open_loop else done_s) <= self.end_s

    def _fail(self, images: int, code: str, message: str) -> None:
        self.requests[code] += 1
        self.failed_images[code] += images
        self.messages.setdefault(code, message[:MAX_MESSAGE_CHARS])

    def result(self, cpu_share: float, max_in_flight: int, *, interrupted: bool) -> WorkerResult:
        """Return what was counted."""
        window_s = max(self.end_s - self.start_s, 1e-9)
        return WorkerResult(
            latency_s=np.array(self.latency_s, dtype=np.float64),
            lag_s=np.array(self.lag_s, dtype=np.float64),
            images=self.images,
            images_late=self.images_late,
            failures={
                code: Failures(count, self.failed_images[code], self.messages[code])
                for code, count in self.requests.items()
            },
            span_s=max(window_s, self.last_s - self.start_s) if self.open_loop else window_s,
            cpu_share=cpu_share,
            max_in_flight=max_in_flight,
            interrupted=interrupted,
        )
