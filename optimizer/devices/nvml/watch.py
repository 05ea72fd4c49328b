"""What one GPU refuses to tell: asked again when that may help, said once, and noticed when it is gone."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from threading import RLock
from typing import TypeVar

from optimizer.devices.nvml.failures import NvmlFailure, Remedy

T = TypeVar("T")
ASK_AGAIN_S = 60.0
REOPEN_S = 60.0
_FOR_GOOD = "the GPU is neither read nor set any more; serving goes on as far as it can"

logger = logging.getLogger("boulton.gpu")


class Watch:
    """Asks one GPU and never raises. Safe to use from several threads.

    What this card, driver or user cannot have is asked for again after a minute only. Every kind of failure
    is one line in the log. Once the GPU is gone, nothing is asked any more; but where all of NVML is gone, as
    while the driver is being reloaded, it is opened again every minute until it answers.

    Args:
        uuid: the GPU, for the log.
        clock: the time in seconds.
        reopen: opens NVML anew and finds the GPU again, or raises NvmlFailure; None: what is gone stays gone.
    """

    def __init__(
        self, uuid: str, clock: Callable[[], float], reopen: Callable[[], None] | None = None
    ) -> None:
        self._uuid = uuid
        self._clock = clock
        self._reopen = reopen
        self._reopen_s = math.inf
        self._lock = RLock()
        self._said: set[tuple[str, str]] = set()
        self._ask_again_s: dict[str, float] = {}
        self._closed = False
        self.lost = ""

    def ask(self, what: str, call: Callable[[], T]) -> T | None:
        """Return what the GPU answers, None when it does not. `what` names the figure."""
        if self.lost or self._closed or self._clock() < self._ask_again_s.get(what, float("-inf")):
            return None
        try:
            return call()
        except NvmlFailure as failure:
            self.note(what, failure)
            return None

    def come_back(self) -> None:
        """Open NVML anew when it is gone and a minute has passed. May block as long as NVML does."""
        if self._reopen is None or self._closed or self._clock() < self._reopen_s:
            return
        self._reopen_s = self._clock() + REOPEN_S
        try:
            self._reopen()
        except NvmlFailure:
            return  # it was said when it went
        with self._lock:
            self.lost, self._reopen_s = "", math.inf
            self._ask_again_s.clear()
        logger.warning("%s: NVML answers again", self._uuid)

    def lacks(self, what: str) -> bool:
        """Whether this figure cannot be had for as long as the card, the driver and the user are the same."""
        return what in self._ask_again_s

    @property
    def lost_for_good(self) -> bool:
        """Whether the GPU is out of reach, and nothing is opened anew for it."""
        return bool(self.lost) and (self._reopen is None or self._reopen_s == math.inf)

    def close(self) -> None:
        """Ask nothing any more, and find nothing wrong with that."""
        self._closed = True

    def lose(self, why: str) -> None:
        """Somebody else found the GPU lost: from now on nothing is asked of it."""
        with self._lock:
            if self.lost or self._closed:
                return
            self.lost = why
        logger.warning("%s: %s; %s", self._uuid, why, _FOR_GOOD)

    def note(self, what: str, failure: NvmlFailure) -> None:
        """Take note of a failed call; `what` names the figure."""
        with self._lock:
            if failure.gone and not self.lost:
                self.lost = str(failure)
                self._reopen_s = self._clock() + REOPEN_S if failure.absent else math.inf
            if failure.lasting:
                self._ask_again_s[what] = self._clock() + ASK_AGAIN_S
            kind = failure.function, failure.code_name
            if self._closed or kind in self._said:
                return
            self._said.add(kind)
        logger.warning("%s: %s; %s", self._uuid, failure, self._consequence(what, failure))

    def _consequence(self, what: str, failure: NvmlFailure) -> str:
        if failure.absent and self._reopen is not None:
            return "the GPU is neither read nor set until NVML, opened anew every minute, answers again"
        return _consequence(what, failure)


def _consequence(what: str, failure: NvmlFailure) -> str:
    if failure.remedy is Remedy.RETRY:
        return f"{what} is not known for now, and is asked for again"
    if failure.gone:
        return _FOR_GOOD
    return f"serving goes on without {what}"
