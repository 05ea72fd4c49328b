from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from optimizer.devices.gpu import DeviceError
from optimizer.governor import Governor, Record
from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Alarm, Decision, Policy
from optimizer.revenue import Targets
from optimizer.surge import Tripwire
from optimizer.telemetry import DeviceReading, Energy, EnergySource, SoFar, Traffic, Window
from server.errors import Unavailable
from server.governing import loop, memory
from server.governing.decision_text import decision_line
from server.governing.keeping import LearnedFile, TargetsFile
from server.governing.loop import WATCHER_BACKLOG, Governing
from server.governing.memory import Keeping
from server.governing.watchdog import Watchdog

GRID = OperatingGrid((1, 2, 4), (500, 1000))


class FakePlant:
    def __init__(self) -> None:
        self.points: list[OperatingPoint] = []
        self.threads: set[int] = set()
        self.watched: tuple[Tripwire | None, Callable[[], None]] = (None, list)

    def sense(self, slo_ms: float) -> tuple[Traffic, DeviceReading]:
        self.threads.add(threading.get_ident())
        energy = Energy(12.0, EnergySource.SIMULATED)
        return Traffic(completed=9, late=2, latency_p99_ms=70.0), DeviceReading(energy=energy)

    def act(self, point: OperatingPoint) -> None:
        self.points.append(point)

    def so_far(self) -> SoFar:
        return SoFar({}, 0)

    def watch(self, wire: Tripwire | None, sound: Callable[[], None]) -> None:
        self.watched = (wire, sound)


class Cycle:
    """Decides on one point after the other; fails where there is none left."""

    name = "cycle"

    def __init__(self, points: Iterator[OperatingPoint]) -> None:
        self.points = points

    def decide(self, window: Window, targets: Targets) -> Decision:
        point = next(self.points, None)
        if point is None:
            raise ArithmeticError("no point is left")
        return Decision(point, "it is its turn")


def ticks() -> Callable[[], float]:
    times = iter(range(1_000_000))
    return lambda: float(next(times))


def make(plant: FakePlant, *points: OperatingPoint) -> Governing:
    governor = Governor(plant, Cycle(iter(points)), GRID, Targets(), ticks())
    return Governing(governor, device=FakeGpu(), model="net", interval_s=0.001)


async def test_decisions_are_applied_logged_and_watched(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    plant = FakePlant()
    governing = make(plant, OperatingPoint(2, 500), *([OperatingPoint(1, 1000)] * 100_000))
    watching = governing.watch()
    first = asyncio.create_task(anext(watching))
    await asyncio.sleep(0)
    await governing.start()
    record = (await first).record
    assert record.decision.point == OperatingPoint(2, 500)
    assert (await anext(watching)).record.decision.point == OperatingPoint(1, 1000)
    await governing.stop()
    assert governing.last is not None
    assert plant.points[:3] == [GRID.default, OperatingPoint(2, 500), OperatingPoint(1, 1000)]
    assert any("net: batch <= 2 at 500 MHz: it is its turn" in line for line in caplog.messages)


async def test_stopping_gives_the_device_back_and_ends_the_watchers() -> None:
    plant = FakePlant()
    governing = make(plant, *([OperatingPoint(1, 500)] * 100_000))
    watched: list[object] = []

    async def watch() -> None:
        watched.extend([record async for record in governing.watch()])

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0)
    await governing.start()
    await governing.stop()
    await watcher
    assert plant.points[-1] == OperatingPoint(4, None)
    assert governing.watchers == 0
    await governing.stop()


async def test_half_a_start_is_undone() -> None:
    plant = FakePlant()
    governing = make(plant)
    acted, go_on = threading.Event(), threading.Event()

    def act(point: OperatingPoint) -> None:
        acted.set()
        assert go_on.wait(30)
        plant.points.append(point)

    plant.act = act
    starting = asyncio.create_task(governing.start())
    await asyncio.to_thread(acted.wait, 30)
    starting.cancel()
    stopping = asyncio.create_task(governing.stop())
    go_on.set()
    await stopping
    assert plant.points == [GRID.default, OperatingPoint(4, None)]


async def test_an_idle_server_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    plant = FakePlant()
    plant.sense = lambda slo_ms: (Traffic(), DeviceReading())
    governing = make(plant, OperatingPoint(2, 500), *([OperatingPoint(2, 500)] * 100_000))
    watching = governing.watch()
    first = asyncio.create_task(anext(watching))
    await asyncio.sleep(0)
    await governing.start()
    await first
    for _ in range(5):
        await anext(watching)
    await governing.stop()
    assert sum("it is its turn" in line for line in caplog.messages) == 1


async def test_the_device_is_used_by_one_thread_that_is_not_the_loop_s() -> None:
    plant = FakePlant()
    governing = make(plant, *([OperatingPoint(1, 500)] * 100_000))
    watching = governing.watch()
    started = asyncio.create_task(anext(watching))
    await asyncio.sleep(0)
    await governing.start()
    await started
    await governing.stop()
    assert len(plant.threads) == 1
    assert threading.get_ident() not in plant.threads


async def test_a_failing_policy_is_reported_once_and_the_setting_stays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plant = FakePlant()
    governing = make(plant, OperatingPoint(2, 500))
    watching = governing.watch()
    first = asyncio.create_task(anext(watching))
    await asyncio.sleep(0)
    await governing.start()
    await first
    sensed = asyncio.Event()
    plant.sense = lambda slo_ms: (running.call_soon_threadsafe(sensed.set), FakePlant().sense(slo_ms))[1]
    running = asyncio.get_running_loop()
    for _ in range(3):
        sensed.clear()
        await sensed.wait()
    await governing.stop()
    assert plant.points[1:-1] == [OperatingPoint(2, 500)]
    assert sum("governing failed" in line for line in caplog.messages) == 1


async def test_a_slow_watcher_loses_the_oldest() -> None:
    plant = FakePlant()
    governing = make(plant, *([OperatingPoint(1, 500)] * 100_000))
    slow, fast = governing.watch(), governing.watch()
    first = [asyncio.create_task(anext(watching)) for watching in (slow, fast)]
    await asyncio.sleep(0)
    await governing.start()
    (oldest, _) = await asyncio.gather(*first)
    newest = [await anext(fast) for _ in range(WATCHER_BACKLOG + 5)][-1]
    await governing.stop()
    seen = [record async for record in slow]
    assert len(seen) < WATCHER_BACKLOG
    assert seen[0].record.window.start_s > oldest.record.window.end_s
    assert seen[-1].record.window.start_s >= newest.record.window.start_s


def stepped(policy: Policy) -> Record:
    return Governor(FakePlant(), policy, GRID, Targets(), ticks(), time_of_day=lambda: 0.0).step()


def test_a_decision_reads_as_a_sentence() -> None:
    line = decision_line(stepped(Cycle(iter([OperatingPoint(2, 500)]))))
    assert line.startswith("batch <= 2 at 500 MHz: it is its turn | last 1.0 s at batch <= 4 at 1000 MHz: ")
    assert "7 images in time, 2 late, 0 queued, p99 70.0 ms, 12.0 J (simulated), revenue" in line


def test_energy_that_nobody_measured_is_called_so() -> None:
    plant = FakePlant()
    plant.sense = lambda slo_ms: (Traffic(), DeviceReading())
    governor = Governor(plant, Cycle(iter([GRID.default])), GRID, Targets(), ticks())
    line = decision_line(governor.step())
    assert line.startswith("batch <= 4 at 1000 MHz: it is its turn")
    assert "energy not measured" in line
    assert line.endswith("an hour without energy")


class Wary:
    """Implements `Learner` too. Stays at the default, and names a refuge for when work piles up."""

    name = "wary"

    def __init__(self) -> None:
        self.known: dict[str, object] = {"windows": 0}
        self.threads: set[int] = set()

    def decide(self, window: Window, targets: Targets) -> Decision:
        self.known["windows"] = int(str(self.known["windows"])) + 1
        return Decision(GRID.default, "all is well", alarm=Alarm(Tripwire(5), OperatingPoint(1, 500)))

    def export_state(self) -> dict[str, object]:
        return dict(self.known)

    def import_state(self, state: dict[str, object]) -> None:
        self.known = {"windows": state["windows"]}

    def forget(self) -> None:
        self.threads.add(threading.get_ident())
        self.known = {"windows": 0}


def wary(plant: FakePlant, interval_s: float = 0.001, keeping: Keeping | None = None) -> Governing:
    governor = Governor(plant, Wary(), GRID, Targets(), ticks())
    return Governing(governor, FakeGpu(), "net", interval_s, keeping)


class FakeGpu:
    uuid = "fake"


def keeping_in(directory: Path) -> Keeping:
    learned = LearnedFile(directory, "fake", "net", "FP32", "wary")
    return Keeping(TargetsFile(directory, Path("models"), "net", Targets()), learned)


async def first_turn(governing: Governing) -> None:
    watching = governing.watch()
    first = asyncio.create_task(anext(watching))
    await asyncio.sleep(0)
    await governing.start()
    await first
    await watching.aclose()


def kept_state(governing: Governing) -> dict[str, int]:
    path = Path(governing.learned_file)
    return json.loads(path.read_text()) if path.is_file() else {}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  what is waited for has no event
            await asyncio.sleep(0)


async def test_the_alarm_takes_refuge_before_the_next_decision(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    plant = FakePlant()
    governing = wary(plant, interval_s=3600.0)
    await governing.start()
    await governing._step()
    limit, sound = plant.watched
    assert limit == Tripwire(5)
    sound()
    await until(lambda: governing.alarms == 1)
    assert plant.points[-1] == OperatingPoint(1, 500)
    assert governing.governor.point == OperatingPoint(1, 500)
    assert any(
        "net: work piles up, takes refuge at batch <= 1 at 500 MHz" in line for line in caplog.messages
    )
    await governing.stop()


async def test_an_alarm_that_a_newer_decision_has_overtaken_is_nothing() -> None:
    plant = FakePlant()
    governing = wary(plant)
    await first_turn(governing)
    turns = governing._turns
    await until(lambda: governing._turns > turns)
    assert await governing._thread.call(lambda: governing._take_refuge(turns)) is None
    assert OperatingPoint(1, 500) not in plant.points
    await governing.stop()
    assert plant.watched[0] is None


async def test_a_pinned_or_paused_governor_takes_no_refuge() -> None:
    plant = FakePlant()
    governing = wary(plant, interval_s=3600.0)
    await governing.start()
    await governing._step()
    governing.governor.pin(OperatingPoint(2, 1000))
    plant.watched[1]()
    assert await governing._thread.call(lambda: governing.governor.point) == GRID.default
    await governing._step()
    assert governing.governor.point == OperatingPoint(2, 1000)
    governing.governor.paused = True
    governing.governor.pin(None)
    await governing._step()
    assert governing.governor.point == OperatingPoint(2, 1000)
    assert "paused by the operator" in governing.last.decision.reason
    await governing.stop()
    assert governing.alarms == 0


async def test_the_line_of_a_pinned_turn_says_so() -> None:
    governing = wary(FakePlant())
    governing.governor.pin(OperatingPoint(2, 1000))
    await first_turn(governing)
    await governing.stop()
    turn = governing.history[0]
    assert turn.pinned == OperatingPoint(2, 1000)
    line = decision_line(turn.record, turn.pinned)
    assert line.startswith(
        "batch <= 2 at 1000 MHz: pinned by the operator; else batch <= 4 at 1000 MHz: all is"
    )
    assert "| alarm: once more than 5 images wait, batch <= 1 at 500 MHz |" in line


def test_the_line_says_what_cannot_be_kept_and_how_long_a_batch_may_wait() -> None:
    class Hopeless:
        name = "hopeless"

        def decide(self, window: Window, targets: Targets) -> Decision:
            return Decision(
                OperatingPoint(2, 500, max_delay_ms=3.0), "the best", infeasible="p99 is 120 ms at best"
            )

    line = decision_line(stepped(Hopeless()))
    assert line.startswith(
        "batch <= 2 after 3 ms at most at 500 MHz: the best | targets cannot be kept: p99 is 120"
    )


def test_a_score_that_is_no_money_is_not_shown_as_money() -> None:
    governor = Governor(FakePlant(), Wary(), GRID, Targets(form="edp"), ticks(), time_of_day=lambda: 0.0)
    line = decision_line(governor.step())
    assert "an hour" not in line
    assert ", edp -" in line


async def test_knowledge_is_saved_at_the_end_and_there_at_the_start(tmp_path: Path) -> None:
    governing = wary(FakePlant(), keeping=keeping_in(tmp_path))
    await first_turn(governing)
    await governing.stop()
    known = kept_state(governing)["windows"]
    assert known >= 1
    again = wary(FakePlant(), interval_s=60.0, keeping=keeping_in(tmp_path))
    await again.start()
    assert await again.learned() == {"windows": known}
    await again.stop()


async def test_knowledge_is_saved_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SAVE_EVERY_S", 0.0)
    governing = wary(FakePlant(), keeping=keeping_in(tmp_path))
    await first_turn(governing)
    assert kept_state(governing)
    await governing.stop()


async def test_forgetting_happens_in_the_governor_s_thread_and_removes_the_file(tmp_path: Path) -> None:
    plant = FakePlant()
    governing = wary(plant, keeping=keeping_in(tmp_path))
    await first_turn(governing)
    await governing._thread.call(governing._memory.save)
    assert kept_state(governing)
    await governing.forget()
    assert not kept_state(governing)
    assert governing.governor.policy.threads == plant.threads
    await governing.stop()


async def test_a_device_that_hangs_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loop, "STOP_LIMIT_S", 0.01)
    plant = FakePlant()
    governing = wary(plant)
    await first_turn(governing)
    hangs, go_on = threading.Event(), threading.Event()

    def sense(slo_ms: float) -> tuple[Traffic, DeviceReading]:
        hangs.set()
        assert go_on.wait(30)
        return Traffic(), DeviceReading()

    plant.sense = sense
    await asyncio.to_thread(hangs.wait, 30)
    await governing.stop()
    assert any("fake did not answer within 0.01 s" in line for line in caplog.messages)
    go_on.set()


async def test_the_processor_time_of_its_thread_is_counted() -> None:
    governing = wary(FakePlant(), interval_s=3600.0)
    await governing.start()
    before_s = governing.cpu_s
    await governing._thread.call(lambda: sum(range(300_000)))
    await governing._thread.call(lambda: None)
    assert governing.cpu_s > before_s
    await governing.stop()


# A device that lends its clock late, and one that hangs.


class LateGpu:
    """Has clocks from the n-th question on."""

    uuid = "late"
    simulated = True

    def __init__(self, from_question: int, clocks_mhz: tuple[int, ...] = (500, 1000)) -> None:
        self._questions_left = from_question
        self._clocks_mhz = clocks_mhz

    @property
    def sm_clocks_mhz(self) -> tuple[int, ...]:
        self._questions_left -= 1
        return self._clocks_mhz if self._questions_left <= 0 else ()


def appoints(plant: FakePlant, tmp_path: Path) -> Callable[[tuple[int, ...]], tuple[Governor, Keeping]]:
    def appoint(clocks_mhz: tuple[int, ...]) -> tuple[Governor, Keeping]:
        grid = OperatingGrid((1, 2, 4), clocks_mhz)
        governor = Governor(plant, Cycle(iter([grid.default] * 100_000)), grid, Targets(), ticks())
        directory = tmp_path / f"{len(clocks_mhz)}"
        return governor, Keeping(
            TargetsFile(directory, tmp_path, "net", Targets()),
            LearnedFile(directory, "late", "net", "FP32", "cycle"),
        )

    return appoint


def late(gpu: LateGpu, plant: FakePlant, tmp_path: Path, clocks_mhz: tuple[int, ...] = ()) -> Governing:
    appoint = appoints(plant, tmp_path)
    return Governing(appoint(clocks_mhz)[0], gpu, "net", 0.001, appoint=appoint)


async def test_a_clock_that_is_lent_late_is_governed_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(loop, "CLOCKS_AGAIN_S", 0.0)
    plant = FakePlant()
    governing = late(LateGpu(3), plant, tmp_path)
    first = governing.governor
    first.targets, first.paused = Targets(slo_p99_ms=7.0), True
    first.pin(OperatingPoint(2))
    await governing.start()
    await until(lambda: OperatingPoint(2, 1000) in plant.points)
    assert governing.governor.grid.sm_clocks_mhz == (500, 1000)
    assert governing.governor.targets.slo_p99_ms == 7.0
    assert governing.governor.paused
    assert governing.governor.pinned == OperatingPoint(2, 1000)
    assert governing.governor.hear == first.hear
    await governing.stop()
    assert plant.points[-1] == OperatingPoint(4, None)
    said = [line for line in caplog.messages if "its clock is governed from now on, 500 to 1000 MHz" in line]
    assert len(said) == 1


async def test_other_clocks_are_governed_after_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CLOCKS_AGAIN_S", 0.0)
    plant = FakePlant()

    def act(point: OperatingPoint) -> None:
        plant.points.append(point)
        if point.sm_clock_mhz == 1500:
            raise DeviceError("1500 MHz is not permitted any more")

    plant.act = act
    governing = late(LateGpu(0), plant, tmp_path, (500, 1500))
    await governing.start()
    await until(lambda: governing.governor.grid.sm_clocks_mhz == (500, 1000))
    await until(lambda: plant.points[-1] == OperatingPoint(4, 1000))
    await governing.stop()


async def test_a_device_that_gives_its_clocks_is_not_asked_again(tmp_path: Path) -> None:
    plant = FakePlant()
    governing = late(LateGpu(0, (1, 2)), plant, tmp_path, (500, 1000))
    await governing.start()
    await until(lambda: len(governing.history) > 5)
    await governing.stop()
    assert governing.governor.grid.sm_clocks_mhz == (500, 1000)


async def test_a_device_that_hangs_is_said_once_and_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loop, "Watchdog", lambda uuid: Watchdog(uuid, 0.02))
    monkeypatch.setattr(loop, "ANSWER_LIMIT_S", 0.02)
    monkeypatch.setattr(loop, "STOP_LIMIT_S", 0.02)
    plant, hangs, go_on = FakePlant(), threading.Event(), threading.Event()
    governing = wary(plant)
    await governing.start()
    senses = plant.sense

    def sense(slo_ms: float) -> tuple[Traffic, DeviceReading]:
        hangs.set()
        assert go_on.wait(30)
        return senses(slo_ms)

    plant.sense = sense
    await until(lambda: "has not answered for" in caplog.text)
    assert hangs.is_set()
    for ask in (governing.learned, governing.forget):
        with pytest.raises(Unavailable, match="keeps the governor waiting"):
            await ask()
    plant.sense = senses
    go_on.set()
    await until(lambda: "answers again" in caplog.text)
    assert caplog.text.count("has not answered for") == 1
    await governing.stop()


async def test_a_device_that_hangs_at_the_start_keeps_no_server_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "ANSWER_LIMIT_S", 0.02)
    plant, go_on = FakePlant(), threading.Event()
    governing = make(plant, *([OperatingPoint(1, 500)] * 100_000))
    acts = plant.act

    def act(point: OperatingPoint) -> None:
        assert go_on.wait(30)
        acts(point)

    plant.act = act
    await governing.start()
    assert not plant.points
    go_on.set()
    await until(lambda: OperatingPoint(1, 500) in plant.points)
    assert plant.points[0] == GRID.default
    await governing.stop()
