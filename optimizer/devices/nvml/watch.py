"""What one GPU refuses to tell: asked again when that may help, said once, and noticed when it is gone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import RLock
from typing import TypeVar

from optimizer.devices.nvml.failures import NvmlFailure, Remedy

T = TypeVar("T")
ASK_AGAIN_S = 60.0

logger = logging.getLogger("boulton.gpu")


class Watch:
    """Asks one GPU and never raises. Safe to use from several threads.

    What this card, driver or user cannot have is asked for again after a minute only. Every kind of failure
    is one line in the log. Once the GPU is gone, nothing is asked any more.

    Args:
        uuid: the GPU, for the log.
        clock: the time in seconds.
    """

    def __init__(self, uuid: str, clock: Callable[[], float]) -> None:
        self._uuid = uuid
        self._clock = clock
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
            self._note(what, failure)
            return None

    def lacks(self, what: str) -> bool:
        """Whether this figure cannot be had for as long as the card, the driver and the user are the same."""
        return what in self._ask_again_s

    def close(self) -> None:
        """Ask nothing any more, and find nothing wrong with that."""
        self._closed = True

    def _note(self, what: str, failure: NvmlFailure) -> None:
        with self._lock:
            if failure.gone and not self.lost:
                self.lost = str(failure)
            if failure.lasting:
                self._ask_again_s[what] = self._clock() + ASK_AGAIN_S
            kind = failure.function, failure.code_name
            if self._closed or kind in self._said:
                return
            self._said.add(kind)
        logger.warning("%s: %s; %s", self._uuid, failure, _consequence(what, failure))


def _consequence(what: str, failure: NvmlFailure) -> str:
    if failure.remedy is Remedy.RETRY:
        return f"{what} is not known for now, and is asked for again"
    if failure.gone:
        return "the GPU is neither read nor set any more; serving goes on as far as it can"
    return f"serving goes on without {what}"
