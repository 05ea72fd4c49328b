"""The alarm that a surge sounds between two decisions of the governor, served or simulated."""

from __future__ import annotations

from collections.abc import Callable

from optimizer.surge import SurgeGauge, Tripwire

_NEVER = 1 << 62  # no queue holds so many images


class QueueAlarm:
    """Calls somebody once, as soon as a wire is tripped; until `watch` nobody.

    Attributes:
        above_images: it goes off when more wait.
        surging: whether more arrived than may; then it goes off with the next look.
    """

    def __init__(self) -> None:
        self._gauge = SurgeGauge()
        self._sound: Callable[[], None] = _nobody
        self._disarm()

    def watch(self, wire: Tripwire | None, sound: Callable[[], None]) -> None:
        """Call `sound` when this wire is tripped; None: never. Replaces the watch before."""
        self._disarm()
        self._sound = sound
        if wire is not None:
            self.above_images = wire.queued_images
            self._gauge.arm(wire)

    def arrived(self, images: int, now_s: float) -> bool:
        """Count images that have arrived, whether they wait or not; True when that is a surge."""
        if self._gauge.arrive(images, now_s):
            self.surging = True
            return True
        return False

    def see(self, queued_images: int) -> bool:
        """Look at how many wait; True when the alarm went off."""
        if not self.surging and queued_images <= self.above_images:
            return False
        self._disarm()
        self._sound()
        return True

    def _disarm(self) -> None:
        self.above_images, self.surging = _NEVER, False
        self._gauge.disarm()


def _nobody() -> None:
    """Hear an alarm that is off."""
