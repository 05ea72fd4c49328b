"""A real GPU as the governor sees it: read through NVML, set through an actuator such as the keeper."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from optimizer.devices.gpu import DeviceError, DeviceGone, DeviceLost
from optimizer.devices.nvml.actuator import Actuator, GpuSetting
from optimizer.devices.nvml.clock_grid import legal_sm_clocks_mhz, span
from optimizer.devices.nvml.confirmation import Confirmation, InForce
from optimizer.devices.nvml.energy import GpuEnergy
from optimizer.devices.nvml.failures import NvmlFailure
from optimizer.devices.nvml.fixed_axes import settable_axes
from optimizer.devices.nvml.library import Card, PowerReading
from optimizer.devices.nvml.watch import Watch
from optimizer.telemetry import DeviceReading, Energy, EnergySource, EventReason

logger = logging.getLogger("boulton.gpu")


class NvmlGpu:
    """Implements `Gpu` by NVML. Reading needs no permission; setting is the actuator's business.

    One thread reads and sets, as the governor's does: `read` may follow `set_sm_clock_mhz` at once, and what
    was asked for is looked for in the GPU's own readings from 0.3 s later on. The only other thread is the
    sampler of power, for cards without an energy counter: `read` starts it and `close` ends it.

    A GPU that is lost, or needs a reset, is given back, and neither read nor set any more. When NVML itself
    goes away, as while the driver is being reloaded, `read` opens it again every minute.

    Args:
        card: the GPU.
        actuator: may set it; None to observe only.
        clock: the time in seconds.
        memory_clock_mhz: the memory clock to set along with every SM clock; None leaves it to the device.
        power_limit_w: the power limit to set along with every SM clock; None leaves it to the device.
        reopen: opens NVML anew and gives the card a valid handle, or raises NvmlFailure; None: a GPU that is
            gone stays gone.
        simulated: whether the card is one of the stand-in library's, whose readings are modelled.
    """

    def __init__(
        self,
        card: Card,
        actuator: Actuator | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        memory_clock_mhz: int | None = None,
        power_limit_w: float | None = None,
        reopen: Callable[[], None] | None = None,
        simulated: bool = False,
    ) -> None:
        self._card = card
        self._actuator = actuator
        self._clock = clock
        self._wanted = GpuSetting(memory_clock_mhz=memory_clock_mhz, power_limit_w=power_limit_w)
        self._fixed = GpuSetting()  # what of it may be set, once that is known
        self._simulated = simulated
        self._watch = Watch(card.uuid, clock, reopen)
        self._energy = GpuEnergy(card, self._watch, clock)
        self._legal_mhz: tuple[int, ...] = ()
        self._up_to_date = False  # whether the clocks above are those that may be set now
        self._disturbances = 0
        self._gave_back = False  # because the GPU was lost
        self._confirmation = Confirmation(card.uuid, self._look, clock)
        self._said: set[str] = set()

    @property
    def uuid(self) -> str:
        """NVML's UUID, e.g. `GPU-5f3c...`."""
        return self._card.uuid

    @property
    def simulated(self) -> bool:
        """Whether the readings are modelled: on cards of the stand-in library only."""
        return self._simulated

    @property
    def lost(self) -> str:
        """Why the GPU is out of reach, for good or until NVML answers again; empty while it is not."""
        return self._watch.lost

    @property
    def unconfirmed(self) -> str:
        """Why the setting last asked for is not in force, by the last reading; empty when it is or may be."""
        return self._confirmation.unconfirmed

    @property
    def sm_clocks_mhz(self) -> tuple[int, ...]:
        """Legal SM clocks within what the actuator permits, ascending; empty when none can be set from here.

        Asks NVML and the actuator until there are some, and again after a refusal: what is permitted may have
        changed. Why there are none is one line in the log.
        """
        if not self._up_to_date and self._actuator is not None and not self.lost:
            try:
                self._find_clocks(self._actuator)
            except DeviceError as error:
                if not (self._is_gone("what may be set", error) or self._legal_mhz):
                    left_alone = f"{self.uuid}: its clock is left alone: {error}"
                    self._say(f"{left_alone}; meanwhile the batch size alone is governed")
        return self._legal_mhz

    def set_sm_clock_mhz(self, clock_mhz: int | None) -> None:
        """Ask for a clock; None gives it back to the device. Raises `DeviceError` when refused.

        Memory clock and power limit, where the operator fixed them, are asked for along with every clock, and
        stay when the SM clock is given back.
        """
        try:
            if clock_mhz is not None:
                self._set(self._actuator, clock_mhz)
            elif self._actuator is not None:
                self._give_back(self._actuator)
        except DeviceError as error:
            self._confirmation.give_up(confirmed=False)
            self._up_to_date = False
            if clock_mhz is not None and self._is_gone("the clock", error):
                raise DeviceGone(f"nothing is set any more: {self.lost}") from error
            raise

    def read(self) -> DeviceReading:
        """Return readings since the previous call; the first call opens the interval: its energy is 0."""
        if self.lost:
            self._watch.come_back()
        energy = self._energy.read()
        power = self._watch.ask("the power", self._card.power_w)
        temperature_c = self._watch.ask("the temperature", self._card.temperature_c)
        seen = self._confirmation.check(self._look())
        if self.lost:
            self._let_go()
            return DeviceReading()
        if power is not None and power.why_not:
            self._say_power(power)
        return DeviceReading(
            energy=_as_simulated(energy) if self._simulated else energy,
            power_w=None if power is None else power.watts,
            sm_clock_mhz=seen.sm_clock_mhz,
            memory_clock_mhz=seen.memory_clock_mhz,
            event_reasons=seen.reasons or EventReason.NONE,
            temperature_c=temperature_c,
            clock_not_taken=self._confirmation.unconfirmed or self._disturbed(),
        )

    def close(self) -> None:
        """Give back what was set, end the sampling, ask nothing any more. Never raises; again is harmless."""
        self._watch.close()
        self._energy.close()
        if self._actuator is not None:
            self._actuator.close()

    def _find_clocks(self, actuator: Actuator) -> None:
        self._legal_mhz = self._settable_mhz(actuator)
        self._up_to_date = True

    def _settable_mhz(self, actuator: Actuator) -> tuple[int, ...]:
        if self._card.mig_enabled():
            raise DeviceError(f"{self.uuid} is cut into MIG instances, which share one clock: it is not set")
        bounds = actuator.bounds()
        if bounds is None:
            raise DeviceError(actuator.trouble)
        self._fixed, left_alone = settable_axes(self._card, bounds, self._wanted)
        for text in left_alone:
            self._say(text)
        return legal_sm_clocks_mhz(self._card, bounds, self._fixed.memory_clock_mhz)

    def _set(self, actuator: Actuator | None, clock_mhz: int) -> None:
        if self.lost:
            raise DeviceGone(f"nothing is set any more: {self.lost}")
        if actuator is None:
            raise DeviceError(f"{self.uuid} is only observed; setting its clock needs --control and a keeper")
        if not self._up_to_date:
            self._find_clocks(actuator)
        if clock_mhz not in self._legal_mhz:
            allowed = span(self._legal_mhz)
            raise DeviceError(f"{self.uuid}: SM clock {clock_mhz} MHz is not legal; choose of {allowed}")
        self._ask(actuator, replace(self._fixed, sm_clock_mhz=clock_mhz))

    def _give_back(self, actuator: Actuator) -> None:
        if self._fixed == GpuSetting() or self.lost:
            actuator.release()
            self._confirmation.give_up(confirmed=True)
        else:
            self._ask(actuator, self._fixed)

    def _let_go(self) -> None:
        """Give back what nobody looks after any more: should the GPU come back, it is not to stay set."""
        if self._actuator is not None and not self._gave_back and self._watch.lost_for_good:
            self._gave_back = True
            with suppress(DeviceError):  # a keeper that cannot give it back now goes on trying
                self._actuator.release()
            self._confirmation.give_up(confirmed=True)

    def _ask(self, actuator: Actuator, setting: GpuSetting) -> None:
        actuator.set(setting)
        self._confirmation.expect(setting, self._legal_mhz)

    def _is_gone(self, what: str, error: DeviceError) -> bool:
        """Whether a refusal means that the GPU, or all of NVML, is out of reach; it is said then."""
        if isinstance(error, NvmlFailure) and error.gone:
            self._watch.note(what, error)
        elif isinstance(error, DeviceLost):
            self._watch.lose(str(error))
        return bool(self.lost)

    def _disturbed(self) -> str:
        """Say that the setting came or went by itself since the previous call, so that two were in force."""
        if self._actuator is None:
            return ""
        before, self._disturbances = self._disturbances, self._actuator.disturbances
        unchanged = before == self._disturbances
        return "" if unchanged else "the keeper lost the setting, or took it up again, meanwhile"

    def _look(self) -> InForce:
        ask, card = self._watch.ask, self._card
        limited = self._fixed.power_limit_w is not None
        return InForce(
            sm_clock_mhz=ask("the SM clock", card.sm_clock_mhz),
            memory_clock_mhz=ask("the memory clock", card.memory_clock_mhz),
            power_limit_w=ask("the power limit", card.power_limit_w) if limited else None,
            reasons=ask("the clock's event reasons", card.event_reasons),
        )

    def _say_power(self, power: PowerReading) -> None:
        """A field that cannot be had costs nothing as long as there is another: no warning."""
        text = f"{self.uuid}: {power.why_not}; its power is read by other means ({power.field})"
        self._say(text, logging.INFO)

    def _say(self, text: str, level: int = logging.WARNING) -> None:
        if text not in self._said:
            self._said.add(text)
            logger.log(level, "%s", text)


def _as_simulated(energy: Energy) -> Energy:
    return energy if energy.joules is None else replace(energy, source=EnergySource.SIMULATED)
