"""Whether the processor core is ours alone just now.

The core of a virtual machine is often half of a physical one. While somebody works on the other half, which
no counter inside the machine tells, arithmetic in Python takes nearly twice as long, steps that wait for
memory half as long again and convolutions a twentieth more, for seconds to minutes on end. A loop whose
length is known tells it within a millisecond.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

_ADDITIONS = 20_000
_LOOKS = 2  # one may be interrupted, the shorter counts
DISTURBED = 1.75
"""So many times the shortest loop: between 1.5, which is seen alone just after other work, and 1.9 beside
somebody."""


def spin() -> float:
    """Return the processor seconds that a fixed amount of arithmetic took."""
    took_s = math.inf
    for _ in range(_LOOKS):
        began_s, total = time.thread_time(), 0
        for number in range(_ADDITIONS):
            total += number
        took_s = min(took_s, time.thread_time() - began_s)
    return took_s


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for the core.

    Args:
        at_once_s: for one run.
        first_s: before the first run, in any case: to have seen the core undisturbed once.
        share: of all time, so much more for each second that was not waited.
    """

    at_once_s: float = 20.0
    first_s: float = 15.0
    share: float = 3.0


USUAL = Patience()
NONE = Patience(0.0, 0.0, 0.0)


class Core:
    """Tells whether the calling thread has its core alone, and waits until it has.

    Args:
        patience: on a machine that is never undisturbed, waiting ends.
        probe: seconds of a loop.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        patience: Patience = USUAL,
        *,
        probe: Callable[[], float] = spin,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience = patience
        self._probe = probe
        self._clock = clock
        self._began_s: float | None = None
        self._waited_s = 0.0
        self._shortest_s = math.inf

    def is_alone(self) -> bool:
        """Look now. The shortest loop so far is taken for undisturbed."""
        took_s = self._probe()
        self._shortest_s = min(took_s, self._shortest_s)
        return took_s <= DISTURBED * self._shortest_s

    def wait(self) -> bool:
        """Keep looking until the core is this thread's alone; False when patience is at its end before."""
        if self._began_s is None:
            self._began_s = self._get_to_know()
        called_s = self._clock()
        until_s = called_s + self._patience_s(called_s - self._began_s)
        alone = self.is_alone()
        while not alone and self._clock() < until_s:
            alone = self.is_alone()
        self._waited_s += self._clock() - called_s
        return alone

    def _get_to_know(self) -> float:
        until_s = self._clock() + self._patience.first_s
        while self._clock() < until_s:
            self.is_alone()
        return self._clock()

    def _patience_s(self, passed_s: float) -> float:
        left_s = self._patience.share * (passed_s - self._waited_s) - self._waited_s
        return min(self._patience.at_once_s, max(0.0, self._patience.at_once_s + left_s))
