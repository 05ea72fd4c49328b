"""When to retry what was too slow on a device that holds its clock down: the later the more often in vain."""

from __future__ import annotations

from optimizer.policies.evidence import out_of_hand, was_in_force
from optimizer.telemetry import Window

_FIRST_WAIT, _LONGEST_WAIT = 2, 32
_HELD = 5
"""A retry that was in time for so many windows came out well: late answers are noticed sooner."""


class Retries:
    """Tells how long to stay at the fast point once answers were late at a clock that the device held down.

    There the device shows when it holds its clock down no longer: then nothing is waited for. That may be for
    a moment only, so that the next wait is longer all the same, until a retry holds.
    """

    def __init__(self) -> None:
        self._next_wait = _FIRST_WAIT
        self._left = self._held = 0

    @property
    def must_wait(self) -> bool:
        """Whether it is too early for another."""
        return self._left > 0

    def observe(self, window: Window, *, tried: bool, failed: bool) -> None:
        """Take in a window.

        Args:
            window: what was measured.
            tried: whether it ran at a setting that was chosen for what it earns, not for safety.
            failed: whether that was too slow.
        """
        if tried:
            self._judge(failed=failed, held_down=out_of_hand(window))
        elif self._left:
            free = not out_of_hand(window) or was_in_force(window)
            self._left = 0 if free else self._left - 1

    def _judge(self, *, failed: bool, held_down: bool) -> None:
        self._held = 0 if failed else self._held + 1
        if self._held >= _HELD:
            self._next_wait = _FIRST_WAIT
        if failed and held_down:
            self._left, self._next_wait = self._next_wait, min(_LONGEST_WAIT, 2 * self._next_wait)
