"""Whether a setting that was asked for is in force, and when its absence needs no explanation.

That NVML accepts a setting says that it was recorded, no more.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from optimizer.devices.nvml.actuator import GpuSetting
from optimizer.telemetry import EventReason

SETTLE_S = 0.3  # a setter takes 10 to 20 ms, and the clock is in force 20 to 250 ms later
_MEMORY_SLACK_MHZ = 10
_LIMIT_SLACK_W = 1.0
_SLOWED = (
    EventReason.GPU_IDLE
    | EventReason.SW_POWER_CAP
    | EventReason.HW_SLOWDOWN
    | EventReason.SYNC_BOOST
    | EventReason.SW_THERMAL_SLOWDOWN
    | EventReason.HW_THERMAL_SLOWDOWN
    | EventReason.HW_POWER_BRAKE
)

logger = logging.getLogger("boulton.gpu")


@dataclass(frozen=True, slots=True)
class InForce:
    """What a GPU says that it does. None: it does not say."""

    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    power_limit_w: float | None = None
    reasons: EventReason | None = None


class Confirmation:
    """Holds what was asked for against what is in force, from 0.3 s after the asking.

    Args:
        uuid: the GPU, for the log.
        look: asks the GPU again.
        clock: the time in seconds.
    """

    def __init__(self, uuid: str, look: Callable[[], InForce], clock: Callable[[], float]) -> None:
        self._uuid = uuid
        self._look = look
        self._clock = clock
        self._asked = GpuSetting()
        self._legal_mhz: tuple[int, ...] = ()
        self._asked_s = 0.0
        self._left_mhz: int | None = None  # given back, and nobody confirmed it
        self._said = False
        self.unconfirmed = ""

    def expect(self, setting: GpuSetting, legal_mhz: tuple[int, ...]) -> None:
        """Look for this setting from now on; an axis that is None may be anything."""
        self._asked, self._legal_mhz, self._asked_s = setting, legal_mhz, self._clock()
        self._left_mhz, self.unconfirmed = None, ""

    def give_up(self, *, confirmed: bool) -> None:
        """Look for nothing any more. Where nobody confirmed it, the clock may still be in force.

        The highest of the legal clocks is let be: it is what the device itself would choose.
        """
        asked_mhz = self._asked.sm_clock_mhz
        if confirmed:
            self._left_mhz = None
        elif asked_mhz is not None and asked_mhz < max(self._legal_mhz, default=asked_mhz):
            self._left_mhz = asked_mhz
        self._asked, self.unconfirmed = GpuSetting(), ""

    def check(self, seen: InForce) -> InForce:
        """Set `unconfirmed`; returns what was seen last.

        Clock and reasons cannot be read at one moment, and work comes and goes between the two. So whatever
        is wrong is looked at twice, under the reasons of both.
        """
        self.unconfirmed = self._lingering(seen.sm_clock_mhz)
        if self._asked == GpuSetting() or self._clock() - self._asked_s < SETTLE_S:
            return seen
        if why_not_in_force(self._asked, seen, self._legal_mhz):
            seen = _under_reasons_of_both(self._look(), seen)
            self.unconfirmed = why_not_in_force(self._asked, seen, self._legal_mhz)
        self._say(taken=not self.unconfirmed and seen.reasons is not None and not seen.reasons & _SLOWED)
        return seen

    def _lingering(self, seen_mhz: int | None) -> str:
        """Say which clock may be left over; a higher one in force proves that it is gone, a lower nothing."""
        left_mhz = self._left_mhz
        if left_mhz is None:
            return ""
        if seen_mhz is not None and seen_mhz > left_mhz + _step_mhz(left_mhz, self._legal_mhz):
            self._left_mhz = None
            return ""
        return (
            f"the SM clock of {left_mhz} MHz may still be in force: that it was given back is not confirmed"
        )

    def _say(self, *, taken: bool) -> None:
        """One line when settings cease to take, however many are tried until one does."""
        if self.unconfirmed and not self._said:
            logger.warning("%s: the setting did not take: %s", self._uuid, self.unconfirmed)
        self._said = bool(self.unconfirmed) or (self._said and not taken)


def why_not_in_force(asked: GpuSetting, seen: InForce, legal_mhz: tuple[int, ...]) -> str:
    """Say which axis of a setting did not take; empty when all did, or the GPU says why it is slower.

    One step between legal SM clocks is let pass. Where the GPU gives no reasons, being slower proves nothing.
    """
    sm_slack_mhz = 0 if asked.sm_clock_mhz is None else _step_mhz(asked.sm_clock_mhz, legal_mhz)
    return (
        _why_clock("SM clock", asked.sm_clock_mhz, seen.sm_clock_mhz, sm_slack_mhz, seen.reasons)
        or _why_clock(
            "memory clock", asked.memory_clock_mhz, seen.memory_clock_mhz, _MEMORY_SLACK_MHZ, seen.reasons
        )
        or _why_limit(asked.power_limit_w, seen.power_limit_w)
    )


def _why_clock(
    what: str, asked_mhz: int | None, seen_mhz: int | None, slack_mhz: int, reasons: EventReason | None
) -> str:
    if asked_mhz is None or seen_mhz is None or abs(seen_mhz - asked_mhz) <= slack_mhz:
        return ""
    if seen_mhz < asked_mhz and (reasons is None or reasons & _SLOWED):
        return ""
    return f"{what} of {asked_mhz} MHz asked for, {seen_mhz} MHz in force, and no event reason explains it"


def _why_limit(asked_w: float | None, seen_w: float | None) -> str:
    if asked_w is None or seen_w is None or abs(seen_w - asked_w) <= _LIMIT_SLACK_W:
        return ""
    return f"power limit of {asked_w:g} W asked for, {seen_w:g} W in force"


def _step_mhz(target_mhz: int, legal_mhz: tuple[int, ...]) -> int:
    """The larger of the steps to the neighbours of a clock; 0 where there are none."""
    index = bisect_left(legal_mhz, target_mhz)
    around = legal_mhz[max(0, index - 1) : index + 2]
    return max((abs(clock - target_mhz) for clock in around), default=0)


def _under_reasons_of_both(later: InForce, earlier: InForce) -> InForce:
    unknown = later.reasons is None or earlier.reasons is None
    reasons = None if unknown else (later.reasons or EventReason.NONE) | (earlier.reasons or EventReason.NONE)
    return InForce(later.sm_clock_mhz, later.memory_clock_mhz, later.power_limit_w, reasons)
