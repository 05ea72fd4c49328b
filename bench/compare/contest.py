"""All engines on one network: started one by one, then measured in turns, each in its own process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from bench.compare.building import built_once
from bench.compare.energy import Meters, Span, idle_w
from bench.compare.engines import BUILDERS, versions_of
from bench.compare.networks import NetworkFile
from bench.compare.plan import Cell, Settings, Subject
from bench.compare.process import Worker, WorkerFailed
from bench.compare.records import Record, Start, Turn
from bench.compare.store import Store, fingerprint_of
from bench.compare.time_limit import TimeLimit
from bench.compare.turns import order
from bench.compare.worker import Ran, Ready
from server.engines.registry import EngineRequest


class Progress(Protocol):
    """Where it is told how far things are."""

    def expect(self, count: int) -> None:
        """Add measurements to come; negative for those that will not."""

    def doing(self, text: str) -> None:
        """Show what is under way."""

    def done(self) -> None:
        """Count a measurement."""

    def say(self, text: str) -> None:
        """Print a line that stays."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What all contests of a comparison share.

    Args:
        settings: how every cell is measured.
        store: where results are kept.
        folder: of the comparison; logs and built engines go below it.
        meters: open.
        machine: JSON-able, what else a result belongs to.
        run: names this run of the command.
        time: how much there is for this network.
    """

    settings: Settings
    store: Store
    folder: Path
    meters: Meters
    machine: object
    run: str
    time: TimeLimit


class Contest:
    """One network, its precisions and engines, at some batch sizes.

    Args:
        ground: shared with the other networks.
        files: the network in each precision, by its name.
        engines: names of those that are here.
        batches: ascending.
        progress: told how far it is.
        open_worker: makes the other end of a process, not yet started.
        after_turn: called when every cell has had its turn.
    """

    def __init__(
        self,
        ground: Ground,
        files: Mapping[str, NetworkFile],
        engines: Sequence[str],
        batches: tuple[int, ...],
        progress: Progress,
        open_worker: Callable[[str, EngineRequest, Path], Worker] = Worker,
        after_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._after_turn = after_turn
        self._open_worker = open_worker
        self._ground = ground
        self._settings = ground.settings
        self._files = files
        self._batches = batches
        self._progress = progress
        self._workers: dict[Subject, Worker] = {}
        subjects = [Subject(f.network, p, engine) for p, f in files.items() for engine in engines]
        cells = [Cell(subject, batch) for subject in subjects for batch in batches]
        self._versions = {engine: versions_of(engine) for engine in engines}
        # What failed before is tried again.
        self._records = {
            cell: replace(ground.store.read(cell, self._fingerprint(cell)), failure="") for cell in cells
        }

    @property
    def records(self) -> tuple[Record, ...]:
        """What is known of every cell."""
        return tuple(self._records.values())

    def hold(self) -> None:
        """Measure what is missing. What fails is recorded, and the others go on."""
        wanting = [cell for cell, record in self._records.items() if record.lacks(self._settings.turns)]
        lacking = {cell: self._records[cell].lacks(self._settings.turns) for cell in wanting}
        self._progress.expect(sum(map(len, lacking.values())))
        try:
            for subject in dict.fromkeys(cell.subject for cell in wanting):
                if self._ground.time.allows(0.0):
                    self._start(subject, [cell for cell in wanting if cell.subject == subject])
            self._note_idle()
            self._take_turns(lacking)
        finally:
            for worker in self._workers.values():
                worker.close()

    def _take_turns(self, lacking: Mapping[Cell, tuple[int, ...]]) -> None:
        for number in range(self._settings.turns):
            due = [cell for cell, numbers in lacking.items() if number in numbers and self._runs(cell)]
            # A turn that was broken off would not be side by side with the rest of it.
            if not self._ground.time.allows(len(due) * self._settings.measurement_s):
                return
            for cell in order(due, number):
                if self._runs(cell):
                    self._take_turn(cell, number)
            self._after_turn()

    def _runs(self, cell: Cell) -> bool:
        return cell.subject in self._workers and not self._records[cell].failure

    def _take_turn(self, cell: Cell, number: int) -> None:
        record = self._records[cell]
        if record.start is None:
            return
        self._progress.doing(f"{cell.subject}, batch {cell.batch}, turn {number + 1}")
        spans: list[Span] = []
        meter, window_s = self._ground.meters.of(on_gpu=record.start.on_gpu), self._settings.window_s

        def meanwhile() -> None:
            if meter is None:
                time.sleep(window_s)
            else:
                spans.append(meter.span(window_s))

        try:
            ran = self._workers[cell.subject].measure(cell.batch, self._settings.lead_s, meanwhile)
        except WorkerFailed as failure:
            self._fail(cell, failure)
            return
        self._keep(record.with_turn(_turn(number, self._ground.run, ran, spans)))
        self._progress.done()

    def _start(self, subject: Subject, cells: Sequence[Cell]) -> None:
        """Start a process and warm up every batch size, the smallest first: memory only ever grows."""
        self._progress.doing(f"starting {subject}")
        before_mib = self._ground.meters.gpu_memory_mib()
        try:
            build_s, cache = self._built(subject, max(self._batches))
            worker = self._workers[subject] = self._worker(subject, cache)
            ready, start_s = worker.start(self._start_limit_s)
        except WorkerFailed as failure:
            for cell in cells:
                self._fail(cell, failure)
            return
        built_s = None if build_s is None else max(0.0, build_s - start_s)
        for cell in cells:
            self._warm_up(cell, worker, ready, start_s, built_s, before_mib)

    def _warm_up(
        self,
        cell: Cell,
        worker: Worker,
        ready: Ready,
        start_s: float,
        build_s: float | None,
        before_mib: float | None,
    ) -> None:
        if cell.subject not in self._workers:
            return
        self._progress.doing(f"warming up {cell.subject}, batch {cell.batch}")
        try:
            warmed = worker.warm_up(cell.batch, self._settings.settling)
        except WorkerFailed as failure:
            self._fail(cell, failure)
            return
        now_mib = self._ground.meters.gpu_memory_mib() if ready.on_gpu else None
        grown_mib = None if now_mib is None or before_mib is None else now_mib - before_mib
        start = Start(
            platform=ready.platform,
            on_gpu=ready.on_gpu,
            start_s=start_s,
            build_s=build_s,
            host_peak_mib=warmed.host_peak_mib,
            gpu_mib=grown_mib,
            warm_up_s=warmed.seconds,
            settled=warmed.settled,
        )
        self._keep(replace(self._records[cell], start=start, failure=""))

    def _built(self, subject: Subject, largest: int) -> tuple[float | None, Path | None]:
        """Return how long a first start takes, and where what was built then lies.

        A process of its own does it, so that the one that is measured starts as any later one would.
        """
        if subject.engine not in BUILDERS:
            return None, None
        name = fingerprint_of([self._fingerprint(Cell(subject, largest)), self._batches])
        cache = self._ground.folder / "builds" / f"{subject.slug}-{name}"

        def build() -> float:
            self._progress.doing(f"building {subject}")
            builder = self._worker(subject, cache)
            try:
                return builder.start(self._start_limit_s)[1]
            finally:
                builder.close()

        return built_once(cache, build), cache

    @property
    def _start_limit_s(self) -> float:
        """Half of the time that is left at most: one slow build must not cost all the others' figures."""
        return min(self._settings.start_limit_s, self._ground.time.left_s / 2)

    def _worker(self, subject: Subject, cache: Path | None) -> Worker:
        logs = self._ground.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        request = EngineRequest(
            onnx_path=self._files[subject.precision].path,
            max_batch=max(self._batches),
            threads=self._settings.threads,
            device_index=self._settings.device_index,
            served_batches=self._batches,
            cache_dir=cache,
        )
        return self._open_worker(subject.engine, request, logs / f"{subject.slug}.log")

    def _note_idle(self) -> None:
        """Measure each device in use while every process is loaded and none works."""
        started = {
            cell: r.start for cell, r in self._records.items() if r.start and cell.subject in self._workers
        }
        for on_gpu in {start.on_gpu for start in started.values()}:
            meter = self._ground.meters.of(on_gpu=on_gpu)
            if meter is not None:
                self._progress.doing("idle power")
                watts = idle_w(meter, self._settings.idle_s)
                for cell in (cell for cell, start in started.items() if start.on_gpu == on_gpu):
                    self._keep(replace(self._records[cell], idle_w=watts))

    def _fail(self, cell: Cell, failure: WorkerFailed) -> None:
        """Record it; a process of no use any more takes its other cells with it."""
        cells = [cell]
        if failure.final and cell.subject in self._workers:
            self._workers.pop(cell.subject).close()
            cells = [other for other in self._records if other.subject == cell.subject]
        for other in cells:
            record = self._records[other]
            if record.lacks(self._settings.turns) and not record.failure:
                self._keep(replace(record, failure=str(failure)))
                self._progress.expect(-len(record.lacks(self._settings.turns)))
        self._progress.say(f"{cell.subject}, batch {cell.batch}: {failure}")

    def _keep(self, record: Record) -> None:
        self._records[record.cell] = record
        self._ground.store.keep(record)

    def _fingerprint(self, cell: Cell) -> str:
        file = self._files[cell.subject.precision]
        return fingerprint_of(
            [
                file.sha256,
                cell.subject.engine,
                cell.batch,
                self._versions[cell.subject.engine],
                self._settings.fingerprint(),
                self._ground.machine,
            ]
        )


def _turn(number: int, run: str, ran: Ran, spans: Sequence[Span]) -> Turn:
    turn = Turn(number, run, ran.batches, ran.seconds, ran.latencies_ms)
    for span in spans:
        turn = replace(
            turn,
            energy_j=span.joules,
            energy_s=span.seconds,
            source=span.source,
            sm_clock_mhz=span.reading.sm_clock_mhz,
            temperature_c=span.reading.temperature_c,
            throttled=span.throttled,
        )
    return turn
