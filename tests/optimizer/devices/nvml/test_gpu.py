from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pynvml
import pytest
from nvml_rack import CardSpec, OpenRack, Rack, make_card
from rack_time import DirectActuator, RackTime

from optimizer.devices.gpu import DeviceError, DeviceGone, DeviceLost, Gpu
from optimizer.devices.nvml.actuator import ClockBounds, GpuSetting
from optimizer.devices.nvml.gpu import NvmlGpu
from optimizer.devices.nvml.library import Nvml
from optimizer.telemetry import NOT_MEASURED, DeviceReading, EnergySource, EventReason

BUSY_S = 3600.0


@dataclass
class Bench:
    """A card, the device made of it, and who sets it."""

    rack: Rack
    time: RackTime
    actuator: DirectActuator
    gpu: NvmlGpu

    def settle(self) -> DeviceReading:
        self.time.pass_by(0.4)
        return self.gpu.read()


class Benches:
    def __init__(self, open_rack: OpenRack, stack: ExitStack) -> None:
        self._open_rack = open_rack
        self._stack = stack

    def __call__(
        self,
        spec: CardSpec | None = None,
        *,
        observe: bool = False,
        reopens: bool = False,
        **settings: object,
    ) -> Bench:
        rack = self._open_rack(spec or make_card())
        nvml = self._stack.enter_context(Nvml(sleep=lambda _: None))
        time = RackTime(rack)
        card = nvml.card_at(0)
        actuator = DirectActuator(card)
        if reopens:
            settings["reopen"] = lambda: (nvml.reopen(), nvml.find_again(card))
        gpu = NvmlGpu(card, None if observe else actuator, clock=time, **settings)
        self._stack.callback(gpu.close)
        return Bench(rack, time, actuator, gpu)


@pytest.fixture
def make_bench(open_rack: OpenRack) -> Iterator[Benches]:
    with ExitStack() as stack:
        yield Benches(open_rack, stack)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# Reading.


def test_making_one_asks_nothing(make_bench: Benches) -> None:
    bench = make_bench()
    device: Gpu = bench.gpu
    assert device.uuid == bench.rack.uuid(0)
    assert not device.simulated
    assert bench.rack.calls("nvmlDeviceGetClockInfo") == 0
    assert bench.rack.calls("nvmlDeviceGetSupportedMemoryClocks") == 0


def test_a_reading_is_what_is_true(make_bench: Benches) -> None:
    bench = make_bench(make_card("hopper"), observe=True)
    bench.rack.keep_busy(0, BUSY_S)
    bench.rack.set_temperature(0, 55.0)
    first = bench.gpu.read()
    assert first.energy.joules == 0.0
    bench.time.pass_by(10.0)
    reading = bench.gpu.read()
    truth = bench.rack.card()
    assert reading.energy.source is EnergySource.NVML_ENERGY_COUNTER
    assert reading.energy.joules == pytest.approx(10.0 * truth.power_w, rel=0.01)
    assert reading.power_w == pytest.approx(truth.power_w, rel=0.02)
    assert (reading.sm_clock_mhz, reading.memory_clock_mhz) == (truth.sm_clock_mhz, truth.memory_clock_mhz)
    assert reading.event_reasons == EventReason(truth.event_reasons)
    assert reading.temperature_c == 55.0
    assert reading.clock_not_taken == ""


def test_two_readings_at_once_see_no_energy_between_them(make_bench: Benches) -> None:
    bench = make_bench()
    bench.gpu.read()
    bench.time.pass_by(1.0)
    assert bench.gpu.read().energy.joules == pytest.approx(32.0, rel=0.03)
    assert bench.gpu.read().energy.joules == 0.0


def test_readings_add_up_to_what_was_used(make_bench: Benches) -> None:
    bench = make_bench()
    bench.gpu.read()
    before_j = bench.rack.card().energy_j
    total_j = 0.0
    for step in range(20):
        if step % 3 == 0:
            bench.rack.keep_busy(0, 0.5)
        bench.time.pass_by(1.0)
        total_j += bench.gpu.read().energy.joules or 0.0
    assert total_j == pytest.approx(bench.rack.card().energy_j - before_j, rel=0.01)


def test_energy_of_simulated_cards_is_called_simulated(make_bench: Benches) -> None:
    bench = make_bench(simulated=True)
    assert bench.gpu.simulated
    assert bench.gpu.read().energy.source is EnergySource.SIMULATED
    bench.rack.fail("nvmlDeviceGetTotalEnergyConsumption", 999, times=1)
    assert bench.gpu.read().energy == NOT_MEASURED


@pytest.mark.parametrize("code", [10, 999])
def test_an_interval_without_its_counter_is_not_measured_and_not_charged_to_the_next(
    make_bench: Benches, code: int
) -> None:
    bench = make_bench()
    bench.gpu.read()
    bench.time.pass_by(1.0)
    bench.rack.fail("nvmlDeviceGetTotalEnergyConsumption", code)
    assert bench.gpu.read().energy == NOT_MEASURED
    bench.rack.clear_failures()
    bench.time.pass_by(1.0)
    assert bench.gpu.read().energy == NOT_MEASURED
    bench.time.pass_by(1.0)
    energy = bench.gpu.read().energy
    assert energy.source is EnergySource.NVML_ENERGY_COUNTER
    assert energy.joules == pytest.approx(32.0, rel=0.03)


def test_a_counter_that_goes_back_gives_no_negative_energy(
    make_bench: Benches, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench()
    counts = iter([500.0, 520.0, 3.0, 7.5])
    monkeypatch.setattr(bench.actuator.card, "energy_j", lambda: next(counts))
    assert [bench.gpu.read().energy.joules for _ in range(4)] == [0.0, 20.0, None, 4.5]
    assert len(warnings(caplog)) == 1


def test_a_counter_that_jumps_beyond_all_bounds_is_not_believed(
    make_bench: Benches, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench()
    counts = iter([500.0, 520.0, 1.8e16, 1.8e16 + 32.0])
    monkeypatch.setattr(bench.actuator.card, "energy_j", lambda: next(counts))
    assert [bench.gpu.read().energy.joules for _ in range(4)] == [0.0, 20.0, None, 32.0]
    assert "jumped by 1.8e+16 J" in warnings(caplog)[0]


def test_a_counter_that_stands_still_is_no_energy_of_nought_and_replaced_by_power(
    make_bench: Benches, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench(make_card(counter_period_s=1e6))
    assert bench.gpu.read().energy.joules == 0.0
    for _ in range(3):
        bench.time.pass_by(1.0)
        assert bench.gpu.read().energy == NOT_MEASURED
    assert len(warnings(caplog)) == 1
    bench.time.pass_by(0.5)
    energy = bench.gpu.read().energy
    assert energy.source is EnergySource.NVML_POWER
    assert energy.joules == pytest.approx(16.0, rel=0.02)


def test_a_counter_that_goes_on_after_a_pause_charges_nothing_to_one_interval(
    make_bench: Benches, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench()
    counts = iter([500.0, 520.0, 520.0, 570.0, 590.0])
    monkeypatch.setattr(bench.actuator.card, "energy_j", lambda: next(counts))
    found = []
    for _ in range(5):
        found.append(bench.gpu.read().energy.joules)
        bench.time.pass_by(1.0)
    assert found == [0.0, 20.0, None, None, 20.0]


def test_a_card_without_counter_is_measured_by_its_power(make_bench: Benches) -> None:
    bench = make_bench(make_card("pascal"), observe=True)
    assert bench.gpu.read().energy.joules == 0.0
    total_j = 0.0
    for _ in range(10):
        bench.time.pass_by(0.5)
        energy = bench.gpu.read().energy
        assert energy.source is EnergySource.NVML_POWER
        total_j += energy.joules or 0.0
    assert total_j == pytest.approx(5.0 * 26.0, rel=0.02)
    bench.gpu.close()
    assert "gpu-power" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("code", [10, 999])
def test_a_counter_that_goes_on_failing_is_replaced_by_power(make_bench: Benches, code: int) -> None:
    bench = make_bench()
    bench.rack.fail("nvmlDeviceGetTotalEnergyConsumption", code)
    for _ in range(3):
        assert bench.gpu.read().energy == NOT_MEASURED
        bench.time.pass_by(0.5)
    energy = bench.gpu.read().energy
    assert energy.source is EnergySource.NVML_POWER
    assert energy.joules == pytest.approx(16.0, rel=0.02)


def test_neither_counter_nor_power(make_bench: Benches) -> None:
    bench = make_bench(make_card("pascal"), observe=True)
    bench.rack.fail("nvmlDeviceGetPowerUsage", 3)
    for _ in range(3):
        reading = bench.gpu.read()
        assert reading.energy == NOT_MEASURED
        assert reading.power_w is None
        assert reading.sm_clock_mhz == 405
        bench.time.pass_by(0.5)


def test_what_a_card_cannot_tell_is_asked_again_after_a_minute_only(make_bench: Benches) -> None:
    bench = make_bench(observe=True)
    bench.rack.fail("nvmlDeviceGetTemperature", 3)
    for _ in range(50):
        assert bench.gpu.read().temperature_c is None
        bench.time.pass_by(1.0)
    assert bench.rack.calls("nvmlDeviceGetTemperature") == 1
    bench.rack.clear_failures()
    bench.time.pass_by(15.0)
    assert bench.gpu.read().temperature_c is not None


@pytest.mark.parametrize(
    ("lose", "said"),
    [
        (lambda rack: rack.lose(0), "GPU_IS_LOST"),
        (lambda rack: rack.fail("nvmlDeviceGetClockInfo", 16), "RESET_REQUIRED"),
        (lambda rack: rack.fail("nvmlDeviceGetTemperature", 9), "DRIVER_NOT_LOADED"),
    ],
)
def test_a_gpu_that_is_lost_is_let_be(
    make_bench: Benches, caplog: pytest.LogCaptureFixture, lose: Callable[[Rack], None], said: str
) -> None:
    bench = make_bench()
    bench.gpu.read()
    bench.gpu.set_sm_clock_mhz(1005)
    lose(bench.rack)
    reading = bench.gpu.read()
    assert said in bench.gpu.lost
    assert reading == DeviceReading()
    asked = (
        bench.rack.calls("nvmlDeviceGetClockInfo"),
        bench.rack.calls("nvmlDeviceGetTotalEnergyConsumption"),
    )
    bench.rack.recover(0)
    bench.rack.clear_failures()
    assert bench.gpu.read() == DeviceReading()
    assert asked == (
        bench.rack.calls("nvmlDeviceGetClockInfo"),
        bench.rack.calls("nvmlDeviceGetTotalEnergyConsumption"),
    )
    assert len(warnings(caplog)) == 1
    assert bench.actuator.asked[1:] == [None], "given back once: whoever can goes on trying"
    settings = len(bench.actuator.asked)
    with pytest.raises(DeviceError, match="nothing is set any more: "):
        bench.gpu.set_sm_clock_mhz(705)
    assert len(bench.actuator.asked) == settings
    bench.gpu.set_sm_clock_mhz(None)  # what was set is given back all the same
    assert bench.actuator.asked[-1] is None


def test_nvml_that_went_away_is_opened_again_every_minute(
    make_bench: Benches, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench(reopens=True)
    bench.gpu.read()
    bench.gpu.set_sm_clock_mhz(1005)
    pynvml.nvmlShutdown()  # what a reload of the driver looks like: whatever is asked is UNINITIALIZED
    bench.rack.fail("nvmlInit", 9, times=1)
    assert bench.gpu.read() == DeviceReading()
    assert "UNINITIALIZED" in bench.gpu.lost
    for _ in range(2):
        bench.time.pass_by(59.0)
        assert bench.gpu.read() == DeviceReading()
    assert bench.rack.calls("nvmlInit") == 2  # the first one opened it
    assert "UNINITIALIZED" in bench.gpu.lost
    bench.time.pass_by(60.0)
    reading = bench.gpu.read()
    assert bench.gpu.lost == ""
    assert reading.sm_clock_mhz == 1005
    assert len(bench.actuator.asked) == 1, "what comes back is not given back"
    assert reading.energy == NOT_MEASURED  # nobody knows what belongs to this interval
    bench.time.pass_by(1.0)
    assert bench.gpu.read().energy.joules == pytest.approx(32.0, rel=0.03)
    bench.gpu.set_sm_clock_mhz(705)
    assert len(warnings(caplog)) == 2


def test_a_gpu_that_is_lost_while_nvml_answers_stays_lost(make_bench: Benches) -> None:
    bench = make_bench(reopens=True)
    bench.rack.lose(0)
    bench.gpu.read()
    bench.rack.recover(0)
    bench.time.pass_by(1000.0)
    assert bench.gpu.read() == DeviceReading()
    assert bench.rack.calls("nvmlInit") == 1


# Setting.


def test_a_clock_travels_and_is_confirmed(make_bench: Benches) -> None:
    bench = make_bench()
    bench.rack.keep_busy(0, BUSY_S)
    assert bench.gpu.sm_clocks_mhz == tuple(range(210, 1411, 15))
    bench.gpu.set_sm_clock_mhz(705)
    assert bench.rack.card().locked_sm_mhz == (705, 705)
    reading = bench.settle()
    assert (reading.sm_clock_mhz, reading.clock_not_taken) == (705, "")
    assert bench.gpu.unconfirmed == ""
    bench.gpu.set_sm_clock_mhz(None)
    assert bench.actuator.asked == [GpuSetting(705), None]
    assert bench.rack.card().is_default
    assert bench.settle().clock_not_taken == ""


def test_an_observer_sets_nothing(make_bench: Benches) -> None:
    bench = make_bench(observe=True)
    assert bench.gpu.sm_clocks_mhz == ()
    bench.gpu.set_sm_clock_mhz(None)
    with pytest.raises(DeviceError, match="only observed"):
        bench.gpu.set_sm_clock_mhz(705)
    assert not bench.rack.set_history()
    bench.gpu.close()


@pytest.mark.parametrize("clock_mhz", [0, 209, 711, 1425])
def test_a_clock_that_is_not_legal(make_bench: Benches, clock_mhz: int) -> None:
    bench = make_bench()
    with pytest.raises(
        DeviceError, match=rf"{clock_mhz} MHz is not legal; choose of 81 from 210 to 1410 MHz"
    ):
        bench.gpu.set_sm_clock_mhz(clock_mhz)
    assert not bench.actuator.asked


def test_only_clocks_within_bounds_are_legal(make_bench: Benches) -> None:
    bench = make_bench()
    bench.actuator.permitted = ClockBounds(700, 900)
    assert bench.gpu.sm_clocks_mhz == tuple(range(705, 901, 15))


def test_bounds_without_a_clock_in_them(make_bench: Benches, caplog: pytest.LogCaptureFixture) -> None:
    bench = make_bench()
    bench.actuator.permitted = ClockBounds(706, 714)
    assert bench.gpu.sm_clocks_mhz == ()
    assert bench.gpu.sm_clocks_mhz == ()
    (said,) = warnings(caplog)
    assert "706 to 714 MHz are permitted, but its SM clocks are 81 from 210 to 1410 MHz" in said


def test_an_actuator_that_does_not_answer_yet(make_bench: Benches, caplog: pytest.LogCaptureFixture) -> None:
    bench = make_bench()
    bench.actuator.permitted = None
    assert bench.gpu.sm_clocks_mhz == ()
    assert bench.gpu.sm_clocks_mhz == ()
    assert len(warnings(caplog)) == 1
    bench.actuator.permitted = ClockBounds(700, 720)
    assert bench.gpu.sm_clocks_mhz == (705, 720)


def test_a_gpu_that_is_cut_up_is_not_set(make_bench: Benches, caplog: pytest.LogCaptureFixture) -> None:
    bench = make_bench()
    bench.rack.set_mig(0, enabled=True)
    assert bench.gpu.sm_clocks_mhz == ()
    assert "MIG" in warnings(caplog)[0]
    assert bench.gpu.read().sm_clock_mhz == 210


def test_a_refusal_is_raised_and_the_clock_is_not_waited_for(make_bench: Benches) -> None:
    bench = make_bench()
    bench.rack.keep_busy(0, BUSY_S)
    bench.gpu.set_sm_clock_mhz(705)
    bench.actuator.refuses = "the keeper does not answer"
    with pytest.raises(DeviceError, match="the keeper does not answer"):
        bench.gpu.set_sm_clock_mhz(1005)
    bench.actuator.refuses = ""
    assert "1005 MHz" not in bench.settle().clock_not_taken
    bench.gpu.set_sm_clock_mhz(1005)
    assert bench.settle().sm_clock_mhz == 1005


def test_a_clock_that_nobody_confirmed_to_be_given_back_is_doubted_until_a_higher_one_is_seen(
    make_bench: Benches,
) -> None:
    bench = make_bench()
    bench.rack.keep_busy(0, BUSY_S)
    bench.gpu.set_sm_clock_mhz(705)
    bench.actuator.refuses = "the keeper does not answer"
    for clock_mhz in (1005, None):
        with pytest.raises(DeviceError, match="the keeper does not answer"):
            bench.gpu.set_sm_clock_mhz(clock_mhz)
    assert "705 MHz may still be in force" in bench.settle().clock_not_taken
    bench.actuator.card.unlock_sm_clock()
    reading = bench.settle()
    assert (reading.sm_clock_mhz, reading.clock_not_taken) == (1410, "")
    assert bench.settle().clock_not_taken == ""


def test_a_clock_that_was_given_back_after_a_refusal_is_not_doubted(make_bench: Benches) -> None:
    bench = make_bench()
    bench.gpu.set_sm_clock_mhz(705)
    with pytest.raises(DeviceError, match="not legal"):
        bench.gpu.set_sm_clock_mhz(711)
    bench.gpu.set_sm_clock_mhz(None)
    assert bench.settle().clock_not_taken == ""


def test_the_highest_clock_is_what_the_device_would_choose_itself(make_bench: Benches) -> None:
    bench = make_bench()
    bench.rack.keep_busy(0, BUSY_S)
    bench.gpu.set_sm_clock_mhz(1410)
    bench.actuator.refuses = "the keeper does not answer"
    with pytest.raises(DeviceError):
        bench.gpu.set_sm_clock_mhz(None)
    assert bench.settle().clock_not_taken == ""


def test_a_window_in_which_the_setting_came_and_went_is_no_evidence(make_bench: Benches) -> None:
    bench = make_bench()
    bench.rack.keep_busy(0, BUSY_S)
    bench.gpu.set_sm_clock_mhz(705)
    assert bench.settle().clock_not_taken == ""
    bench.actuator.disturbances += 2
    assert "lost the setting" in bench.settle().clock_not_taken
    assert bench.settle().clock_not_taken == ""


def test_why_a_clock_was_refused_is_the_caller_s_to_say(
    make_bench: Benches, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench()
    bench.gpu.set_sm_clock_mhz(705)
    bench.actuator.permitted, bench.actuator.refuses = None, "nobody answers"
    for _ in range(2):
        with pytest.raises(DeviceError, match=r"^nobody answers$"):
            bench.gpu.set_sm_clock_mhz(1005)
        assert bench.gpu.sm_clocks_mhz[-1] == 1410
    assert not warnings(caplog)


def test_after_a_refusal_it_is_asked_anew_what_is_permitted(make_bench: Benches) -> None:
    bench = make_bench()
    assert bench.gpu.sm_clocks_mhz[-1] == 1410
    bench.actuator.permitted, bench.actuator.refuses = ClockBounds(700, 900), "out of bounds"
    with pytest.raises(DeviceError, match="out of bounds"):
        bench.gpu.set_sm_clock_mhz(1410)
    assert bench.gpu.sm_clocks_mhz == tuple(range(705, 901, 15))


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        (ClockBounds(0, 2000), "power_limit_w in the keeper's configuration: none"),
        (ClockBounds(0, 2000, 100.0, 240.0), "power_limit_w in the keeper's configuration: 100 to 240 W"),
        (ClockBounds(0, 2000, 100.0, 900.0), ""),
    ],
)
def test_a_power_limit_that_may_not_be_set_keeps_no_clock_from_moving(
    make_bench: Benches, caplog: pytest.LogCaptureFixture, bounds: ClockBounds, said: str
) -> None:
    bench = make_bench(power_limit_w=250.0)
    bench.actuator.permitted = bounds
    bench.gpu.set_sm_clock_mhz(705)
    bench.gpu.set_sm_clock_mhz(None)
    limit_w = None if said else 250.0
    assert bench.actuator.asked == [
        GpuSetting(705, None, limit_w),
        GpuSetting(None, None, limit_w) if limit_w else None,
    ]
    assert said in "".join(warnings(caplog))
    assert len(warnings(caplog)) == bool(said)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"power_limit_w": 2000.0}, "a power limit of 2000 W is not the card's: "),
        ({"memory_clock_mhz": 1000}, "a memory clock of 1000 MHz is not one of the card's: "),
    ],
)
def test_an_axis_that_the_card_does_not_have_keeps_no_clock_from_moving(
    make_bench: Benches, caplog: pytest.LogCaptureFixture, wanted: dict[str, float], said: str
) -> None:
    bench = make_bench(**wanted)
    bench.gpu.set_sm_clock_mhz(705)
    assert bench.actuator.asked == [GpuSetting(705)]
    (text,) = warnings(caplog)
    assert said in text


def test_a_power_limit_that_cannot_be_judged_is_left_alone(
    make_bench: Benches, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench(power_limit_w=250.0)
    bench.rack.fail("nvmlDeviceGetPowerManagementLimitConstraints", 3)
    bench.gpu.set_sm_clock_mhz(705)
    assert bench.actuator.asked == [GpuSetting(705)]
    assert "could not be set and taken back" in warnings(caplog)[0]
    assert "NVML says NOT_SUPPORTED" in warnings(caplog)[0]


def test_a_power_limit_that_cannot_be_read_could_not_be_put_back_and_is_left_alone(
    make_bench: Benches, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench(power_limit_w=250.0)
    bench.rack.fail("nvmlDeviceGetPowerManagementLimit", 4)
    bench.gpu.set_sm_clock_mhz(705)
    assert bench.actuator.asked == [GpuSetting(705)]
    assert "NVML says NO_PERMISSION" in warnings(caplog)[0]


def test_a_power_limit_that_may_be_told_later_is_waited_for(make_bench: Benches) -> None:
    bench = make_bench(power_limit_w=250.0)
    bench.rack.fail("nvmlDeviceGetPowerManagementLimitConstraints", 10)
    assert bench.gpu.sm_clocks_mhz == ()
    bench.rack.clear_failures()
    bench.gpu.set_sm_clock_mhz(705)
    assert bench.actuator.asked == [GpuSetting(705, power_limit_w=250.0)]


def test_a_gpu_that_its_keeper_finds_lost_is_given_up_and_said_once(
    make_bench: Benches, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench()

    def lost(_setting: GpuSetting) -> None:
        raise DeviceLost("NVML says GPU_IS_LOST (15)")

    monkeypatch.setattr(bench.actuator, "set", lost)
    for _ in range(2):
        with pytest.raises(DeviceGone, match="nothing is set any more: NVML says GPU_IS_LOST"):
            bench.gpu.set_sm_clock_mhz(705)
    assert bench.gpu.lost
    assert bench.gpu.read() == DeviceReading()
    assert len(warnings(caplog)) == 1


def test_a_clock_that_does_not_take_is_noticed_and_said_once(
    make_bench: Benches, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench()
    bench.rack.keep_busy(0, BUSY_S)
    bench.rack.set_reason(0, 0, clock_mhz=600)  # a limit that nothing explains
    bench.gpu.set_sm_clock_mhz(1005)
    assert bench.gpu.read().clock_not_taken == ""  # it may still come
    for asked_mhz in (1005, 1005, 1110):
        bench.gpu.set_sm_clock_mhz(asked_mhz)
        reading = bench.settle()
        assert f"SM clock of {asked_mhz} MHz asked for, 600 MHz in force" in reading.clock_not_taken
        assert bench.gpu.unconfirmed == reading.clock_not_taken
    assert len(warnings(caplog)) == 1
    bench.rack.set_reason(0, 0)
    assert bench.settle().clock_not_taken == ""
    assert bench.gpu.unconfirmed == ""
    bench.rack.set_reason(0, 0, clock_mhz=600)
    assert bench.settle().clock_not_taken
    assert len(warnings(caplog)) == 2


@pytest.mark.parametrize("reason", [0x4, 0x8, 0x20, 0x40, 0x80])
def test_a_clock_that_is_held_down_for_a_reason_is_explained(make_bench: Benches, reason: int) -> None:
    bench = make_bench()
    bench.rack.keep_busy(0, BUSY_S)
    bench.rack.set_reason(0, reason, clock_mhz=600)
    bench.gpu.set_sm_clock_mhz(1005)
    reading = bench.settle()
    assert (reading.sm_clock_mhz, reading.clock_not_taken) == (600, "")
    assert EventReason(reason) in reading.event_reasons


def test_an_idle_gpu_below_its_lock_is_explained(make_bench: Benches) -> None:
    bench = make_bench(make_card("ampere", idles_below_lock=True))
    bench.gpu.set_sm_clock_mhz(1005)
    bench.time.pass_by(1.0)
    reading = bench.gpu.read()
    assert (reading.sm_clock_mhz, reading.clock_not_taken) == (210, "")


def test_a_clock_given_back_behind_our_back_is_noticed(make_bench: Benches) -> None:
    bench = make_bench()
    bench.rack.keep_busy(0, BUSY_S)
    bench.gpu.set_sm_clock_mhz(705)
    assert bench.settle().clock_not_taken == ""
    bench.actuator.card.unlock_sm_clock()  # the keeper was killed, say
    assert "705 MHz asked for, 1410 MHz in force" in bench.settle().clock_not_taken


def test_work_that_begins_between_two_looks_is_no_fault(
    make_bench: Benches, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench()
    bench.gpu.set_sm_clock_mhz(1005)
    bench.time.pass_by(1.0)
    clocks, reasons = iter([210, 1005]), iter([EventReason.NONE, EventReason.NONE])
    monkeypatch.setattr(bench.actuator.card, "sm_clock_mhz", lambda: next(clocks))
    monkeypatch.setattr(bench.actuator.card, "event_reasons", lambda: next(reasons))
    reading = bench.gpu.read()
    assert (reading.sm_clock_mhz, reading.clock_not_taken) == (1005, "")


def test_fixed_axes_go_along_with_every_clock_and_stay(make_bench: Benches) -> None:
    bench = make_bench(make_card("hopper"), memory_clock_mhz=1593, power_limit_w=250.0)
    bench.rack.keep_busy(0, BUSY_S, 0.1)
    bench.gpu.set_sm_clock_mhz(705)
    assert bench.actuator.asked == [GpuSetting(705, 1593, 250.0)]
    reading = bench.settle()
    assert (reading.memory_clock_mhz, reading.clock_not_taken) == (1593, "")
    bench.gpu.set_sm_clock_mhz(None)
    assert bench.actuator.asked[-1] == GpuSetting(None, 1593, 250.0)
    bench.rack.set_power_limit(0, 300.0)
    assert bench.settle().clock_not_taken == "power limit of 250 W asked for, 300 W in force"


def test_fixed_axes_are_given_back_too_when_the_gpu_is_lost(make_bench: Benches) -> None:
    bench = make_bench(make_card("hopper"), power_limit_w=250.0)
    bench.gpu.set_sm_clock_mhz(705)
    bench.rack.fail("nvmlDeviceGetClockInfo", 15)
    bench.gpu.read()
    bench.gpu.set_sm_clock_mhz(None)
    assert bench.actuator.asked[-1] is None


def test_a_memory_clock_that_the_card_does_not_have(
    make_bench: Benches, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench(make_card("hopper"), memory_clock_mhz=2000)
    assert bench.gpu.sm_clocks_mhz
    assert "2000 MHz is not one of the card's: 1593, 2619 MHz: it is left alone" in warnings(caplog)[0]


def test_the_memory_clock_decides_which_clocks_are_legal(make_bench: Benches) -> None:
    slow = make_bench(make_card("turing"), memory_clock_mhz=405)
    assert slow.gpu.sm_clocks_mhz[-1] == 645


def test_closing_ends_the_actuator_and_asks_nothing_more(
    make_bench: Benches, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench()
    bench.gpu.read()
    bench.gpu.close()
    bench.gpu.close()
    assert bench.actuator.closed
    asked = bench.rack.calls("nvmlDeviceGetClockInfo")
    assert bench.gpu.read().energy == NOT_MEASURED
    assert bench.rack.calls("nvmlDeviceGetClockInfo") == asked
    assert not warnings(caplog)
