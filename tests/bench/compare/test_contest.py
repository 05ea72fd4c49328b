"""Who is started and measured when, with processes that are not there."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.compare.contest import Contest, Ground
from bench.compare.energy import Meter, Span
from bench.compare.networks import NetworkFile
from bench.compare.plan import Settings
from bench.compare.process import WorkerFailed
from bench.compare.records import Record
from bench.compare.settling import SettlingRule
from bench.compare.store import Store
from bench.compare.time_limit import TimeLimit
from bench.compare.worker import Ran, Ready, Warmed
from optimizer.telemetry import DeviceReading
from server.engines.registry import EngineRequest

SETTINGS = Settings(turns=6, window_s=0.0, lead_s=0.0)


class SteadyMeter(Meter):
    """100 W, and a second each time."""

    def __init__(self) -> None:
        self.spans = 0

    def span(self, seconds: float) -> Span:
        del seconds
        self.spans += 1
        return Span(100.0, 1.0, "rapl", DeviceReading())


@dataclass
class Scene:
    """Fakes: what was asked of whom, and what shall fail."""

    folder: Path
    events: list[tuple[object, ...]] = field(default_factory=list)
    fail: Callable[..., str] = lambda *_: ""
    start_s: float = 1.0
    meter: SteadyMeter = field(default_factory=SteadyMeter)
    said: list[str] = field(default_factory=list)
    expected: int = 0
    counted: int = 0
    time: TimeLimit = field(default_factory=TimeLimit)
    turns_told: int = 0
    start_limits_s: list[float] = field(default_factory=list)
    on_gpu: bool = False
    used_mib: float = 500.0

    def of(self, *, on_gpu: bool) -> Meter:
        assert on_gpu == self.on_gpu
        return self.meter

    def gpu_memory_mib(self) -> float:
        return self.used_mib

    def expect(self, count: int) -> None:
        self.expected += count

    def doing(self, text: str) -> None:
        pass

    def done(self) -> None:
        self.counted += 1

    def say(self, text: str) -> None:
        self.said.append(text)

    def hold(self, *engines: str, batches: tuple[int, ...] = (1, 8), run: str = "now") -> list[Record]:
        file = NetworkFile("net", "fp32", self.folder / "net.onnx", "abc")
        ground = Ground(SETTINGS, Store(self.folder), self.folder, self, None, run, self.time)  # type: ignore[arg-type]
        contest = Contest(ground, {"fp32": file}, engines, batches, self, self.open_worker, self.tell)  # type: ignore[arg-type]
        contest.hold()
        return list(contest.records)

    def tell(self) -> None:
        self.turns_told += 1

    def open_worker(self, engine: str, request: EngineRequest, log: Path) -> FakeWorker:
        assert request.served_batches[-1] == request.max_batch
        assert log.parent.is_dir()
        return FakeWorker(self, engine, request)

    def did(self, what: str) -> list[tuple[object, ...]]:
        return [event[1:] for event in self.events if event[0] == what]


@dataclass
class FakeWorker:
    scene: Scene
    engine: str
    request: EngineRequest

    def _do(self, what: str, batch: int = 0) -> None:
        self.scene.events.append((what, self.engine, batch))
        reason = self.scene.fail(what, self.engine, batch)
        if reason:
            raise WorkerFailed(reason, final=reason.startswith("dead"))

    def start(self, limit_s: float) -> tuple[Ready, float]:
        self.scene.start_limits_s.append(limit_s)
        self._do("start")
        built = self.request.cache_dir is not None and not any(self.request.cache_dir.iterdir())
        if built and self.request.cache_dir is not None:
            (self.request.cache_dir / "plan").touch()
        self.scene.used_mib += 100.0
        return Ready("fake", self.scene.on_gpu), self.scene.start_s + (30.0 if built else 0.0)

    def warm_up(self, batch: int, rule: SettlingRule) -> Warmed:
        del rule
        self._do("warm", batch)
        self.scene.used_mib += batch
        return Warmed(0.5, settled=True, host_peak_mib=10.0)

    def measure(self, batch: int, lead_s: float, meanwhile: Callable[[], None]) -> Ran:
        del lead_s
        self._do("measure", batch)
        meanwhile()
        return Ran(10, 1.0, (100.0,) * 10)

    def close(self) -> None:
        self.scene.events.append(("close", self.engine))


def test_everybody_is_started_before_anybody_is_measured(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    records = scene.hold("onnxruntime", "pytorch")
    kinds = [event[0] for event in scene.events]
    assert kinds.index("measure") > max(i for i, kind in enumerate(kinds) if kind in ("start", "warm"))
    assert kinds[-2:] == ["close", "close"]
    assert all(len(record.turns) == 6 and not record.failure for record in records)
    assert scene.expected == scene.counted == 24


def test_cells_take_turns(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.hold("onnxruntime", "pytorch")
    measured = scene.did("measure")
    turns = [tuple(measured[begin : begin + 4]) for begin in range(0, 24, 4)]
    assert all(len(set(turn)) == 4 for turn in turns)
    assert len({turn[0] for turn in turns}) >= 3
    assert len(set(turns)) >= 4


def test_smaller_batches_are_warmed_up_first(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.hold("onnxruntime", batches=(1, 8, 64))
    assert scene.did("warm") == [("onnxruntime", 1), ("onnxruntime", 8), ("onnxruntime", 64)]


def test_a_batch_that_fails_leaves_the_others(tmp_path: Path) -> None:
    scene = Scene(
        tmp_path, fail=lambda what, engine, batch: "no memory" if (what, batch) == ("warm", 8) else ""
    )
    records = scene.hold("onnxruntime")
    assert [(r.cell.batch, len(r.turns), r.failure) for r in records] == [(1, 6, ""), (8, 0, "no memory")]
    assert scene.said == ["net fp32 on onnxruntime, batch 8: no memory"]
    assert scene.expected == scene.counted


def test_a_process_that_dies_takes_its_cells_with_it_and_no_others(tmp_path: Path) -> None:
    deaths = itertools.count()

    def fail(what: str, engine: str, _batch: int) -> str:
        return "dead: signal 9" if (what, engine) == ("measure", "pytorch") and next(deaths) == 5 else ""

    scene = Scene(tmp_path, fail=fail)
    records = scene.hold("onnxruntime", "pytorch")
    by_engine = {
        r.cell.subject.engine: [x for x in records if x.cell.subject == r.cell.subject] for r in records
    }
    assert all(len(record.turns) == 6 for record in by_engine["onnxruntime"])
    assert all(record.failure == "dead: signal 9" for record in by_engine["pytorch"])
    assert sum(len(record.turns) for record in by_engine["pytorch"]) == 5
    assert scene.did("close").count(("pytorch",)) == 1
    assert scene.expected == scene.counted


def test_what_failed_is_tried_again_and_what_is_there_is_kept(tmp_path: Path) -> None:
    first = Scene(tmp_path, fail=lambda what, engine, _batch: "dead" if engine == "pytorch" else "")
    assert any(record.failure for record in first.hold("onnxruntime", "pytorch"))
    second = Scene(tmp_path)
    records = second.hold("onnxruntime", "pytorch", run="later")
    assert all(len(record.turns) == 6 and not record.failure for record in records)
    assert {event[1] for event in second.events} == {"pytorch"}
    assert {turn.run for r in records for turn in r.turns if r.cell.subject.engine == "onnxruntime"} == {
        "now"
    }


def test_building_is_told_apart_from_starting(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    records = scene.hold("pytorch-compiled")
    assert scene.did("start") == [("pytorch-compiled", 0)] * 2  # one to build, one that finds it built
    assert {record.start.build_s for record in records if record.start} == {30.0}
    assert {record.start.start_s for record in records if record.start} == {1.0}
    for path in (tmp_path / "cells").iterdir():
        path.unlink()
    again = Scene(tmp_path)
    assert {record.start.build_s for record in again.hold("pytorch-compiled") if record.start} == {30.0}
    assert len(again.did("start")) == 1


def test_a_build_that_broke_off_is_begun_anew(tmp_path: Path) -> None:
    Scene(tmp_path, fail=lambda what, *_: "dead" if what == "start" else "").hold("pytorch-compiled")
    (cache,) = (tmp_path / "builds").iterdir()
    (cache / "half").touch()
    records = Scene(tmp_path).hold("pytorch-compiled")
    assert not (cache / "half").exists()
    assert all(len(record.turns) == 6 for record in records)


def test_energy_and_idle_power_are_recorded(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    (record,) = scene.hold("onnxruntime", batches=(8,))
    assert record.idle_w == 100.0
    assert {turn.power_w for turn in record.turns} == {100.0}
    assert {turn.source for turn in record.turns} == {"rapl"}
    assert record.turns[0].joules_per_image(8) == 1.25  # 100 W at 80 images/s


def test_turns_end_when_time_is_up(tmp_path: Path) -> None:
    class OneTurn(TimeLimit):
        answers = iter([True, True, True, False])  # two starts, one turn

        def allows(self, seconds: float) -> bool:
            del seconds
            return next(self.answers)

    scene = Scene(tmp_path, time=OneTurn())
    records = scene.hold("onnxruntime", "pytorch")
    assert scene.turns_told == 1
    assert {len(record.turns) for record in records} == {1}
    (path, *_) = (tmp_path / "cells").iterdir()
    assert len(json.loads(path.read_text())["turns"]) == 1


def test_what_was_measured_is_told_after_each_turn(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.hold("onnxruntime")
    assert scene.turns_told == SETTINGS.turns


def test_a_start_may_take_half_of_the_time_that_is_left(tmp_path: Path) -> None:
    now_s = [0.0]
    scene = Scene(tmp_path, time=TimeLimit(60.0, lambda: now_s[0]))
    scene.hold("pytorch-compiled")
    assert scene.start_limits_s == [30.0, 30.0]
    unbounded = Scene(tmp_path)
    unbounded.hold("pytorch")
    assert unbounded.start_limits_s == [SETTINGS.start_limit_s]


def test_an_engine_that_cannot_run_takes_no_time_from_turns(tmp_path: Path) -> None:
    """Four cells of which two are dead: a turn of two has room where one of four has not."""
    room_s = 3 * SETTINGS.measurement_s
    scene = Scene(
        tmp_path,
        fail=lambda what, engine, _batch: "dead" if (what, engine) == ("start", "pytorch") else "",
        time=TimeLimit(room_s, lambda: 0.0),
    )
    turns = {(r.cell.subject.engine, len(r.turns)) for r in scene.hold("onnxruntime", "pytorch")}
    assert turns == {("onnxruntime", SETTINGS.turns), ("pytorch", 0)}


def test_memory_of_the_gpu_is_what_an_engine_adds_to_it(tmp_path: Path) -> None:
    records = Scene(tmp_path, on_gpu=True).hold("onnxruntime-cuda", "pytorch")
    grown = {(r.cell.subject.engine, r.cell.batch): r.start.gpu_mib for r in records if r.start}
    assert grown == {
        (e, b): mib for e in ("onnxruntime-cuda", "pytorch") for b, mib in ((1, 101.0), (8, 109.0))
    }


def test_memory_of_the_gpu_is_not_told_of_engines_on_the_cpu(tmp_path: Path) -> None:
    records = Scene(tmp_path).hold("onnxruntime")
    assert {record.start.gpu_mib for record in records if record.start} == {None}
