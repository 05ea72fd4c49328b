"""The alarm that a surge sounds between two decisions of the governor."""

from __future__ import annotations

from collections.abc import Callable

from optimizer.surge import SurgeGauge, Tripwire

_NEVER = 1 << 62  # no queue holds so many images


class QueueAlarm:
    """Calls somebody once, as soon as a wire is tripped; until `watch` nobody."""

    def __init__(self) -> None:
        self._gauge = SurgeGauge()
        self._sound: Callable[[], None] = _nobody
        self._disarm()

    def watch(self, wire: Tripwire | None, sound: Callable[[], None]) -> None:
        """Call `sound` when this wire is tripped; None: never. Replaces the watch before."""
        self._disarm()
        self._sound = sound
        if wire is not None:
            self._above_images = wire.queued_images
            self._gauge.arm(wire)

    def arrived(self, images: int, now_s: float) -> None:
        """Count images that have arrived, whether they wait or not."""
        if self._gauge.arrive(images, now_s):
            self._go_off()

    def see(self, queued_images: int) -> None:
        """Look at how many wait."""
        if queued_images > self._above_images:
            self._go_off()

    def _go_off(self) -> None:
        self._disarm()
        self._sound()

    def _disarm(self) -> None:
        self._above_images = _NEVER
        self._gauge.disarm()


def _nobody() -> None:
    """Hear an alarm that is off."""
