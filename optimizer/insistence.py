"""When to ask a device again for a clock that it was asked for and is not at."""

from __future__ import annotations

PAUSES_STEPS = (4, 8, 16, 32)
"""How many windows pass before the next asking. Not fewer than a clock takes to come into force, and more,
each time that it was in vain: whoever else sets the clock is not fought with every second."""


class Insistence:
    """Counts windows: says after which of them the clock is to be asked for again.

    Somebody else may have set another clock or lifted ours; a driver that was loaded anew has forgotten it.
    """

    def __init__(self) -> None:
        self._in_vain = 0
        self._pause = 0

    def due(self, *, in_force: bool) -> bool:
        """Whether to ask again now. Called once a window.

        Args:
            in_force: whether the clock asked for was in force, or nothing says that it was not.
        """
        if self._pause:
            self._pause -= 1
            return False
        if in_force:
            self._in_vain = 0
            return False
        self._pause = PAUSES_STEPS[min(self._in_vain, len(PAUSES_STEPS) - 1)]
        self._in_vain += 1
        return True
