"""Running generators: one here, or several in processes of their own, all starting at the same time."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TypeVar

from bench.load.measuring import WorkerResult
from bench.load.plan import LoadPlan
from bench.load.worker import Orders, run_worker
from server.errors import BoultonError
from server.event_loop import run
from server.memory import keep_pages

T = TypeVar("T")

# From the last process being ready to all of them starting.
HEAD_START_S = 0.2
STOP_S = 5.0

Started = Callable[[], None]
Tick = Callable[[int, int], None]


class GeneratorFailed(BoultonError):
    """A generator process could not do its work."""


def run_load(plan: LoadPlan, started: Started, tick: Tick) -> list[WorkerResult]:
    """Run the plan; return one result a process.

    Args:
        plan: the run.
        started: called when the first request is about to be sent.
        tick: told now and then the numbers of answered and failed requests.

    Raises:
        BoultonError: the server or the plan is at fault, or a process failed.
    """
    if plan.processes > 1:
        return _Crew(plan, tick).run(started)

    keep_pages()
    return [run(_alone(plan, started, tick))]


async def _alone(plan: LoadPlan, started: Started, tick: Tick) -> WorkerResult:
    """Generate in this process; Ctrl-C during the run ends it early, before it ends everything."""
    stop = asyncio.Event()

    async def begin() -> float:
        with suppress(ValueError, RuntimeError, NotImplementedError):  # not the main thread: no signals
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
        started()
        return time.monotonic()

    return await run_worker(plan, 0, Orders(begin, stop, tick))


class _Crew:
    """Generator processes, each at the other end of a pipe.

    A process says ("ready",) and is told ("start", when) and perhaps ("stop",). It says
    ("tick", answered, failed) now and then, and at last ("result", WorkerResult); or ("error", BoultonError)
    at any time.
    """

    def __init__(self, plan: LoadPlan, tick: Tick) -> None:
        self._plan = plan
        self._tick = tick
        self._counts = [(0, 0)] * plan.processes
        self._results: dict[int, WorkerResult] = {}
        self._ready: set[int] = set()

    def run(self, started: Started) -> list[WorkerResult]:
        context = multiprocessing.get_context("spawn")  # gRPC does not survive a fork
        pipes = [context.Pipe() for _ in range(self._plan.processes)]
        crew = [
            context.Process(target=_child, args=(self._plan, index, theirs), daemon=True)
            for index, (_, theirs) in enumerate(pipes)
        ]
        try:
            for process, (_, theirs) in zip(crew, pipes, strict=True):
                process.start()
                theirs.close()
            return self._conduct([ours for ours, _ in pipes], started)
        finally:
            for ours, _ in pipes:
                ours.close()
            _dismiss(crew)

    def _conduct(self, pipes: Sequence[Connection], started: Started) -> list[WorkerResult]:
        self._hear(pipes, lambda: len(self._ready) == len(pipes))
        started()
        start_s = time.monotonic() + HEAD_START_S
        for pipe in pipes:
            pipe.send(("start", start_s))
        self._hear(pipes, lambda: len(self._results) == len(pipes))
        return [self._results[index] for index in range(len(pipes))]

    def _hear(self, pipes: Sequence[Connection], enough: Callable[[], bool]) -> None:
        while not enough():
            try:
                talking = wait([pipe for i, pipe in enumerate(pipes) if i not in self._results])
            except KeyboardInterrupt:
                if len(self._ready) < len(pipes):
                    raise
                _stop(pipes)
                continue
            for pipe in talking:
                self._note(pipes.index(pipe), pipe)  # type: ignore[arg-type]  # sockets are not among ours

    def _note(self, index: int, pipe: Connection) -> None:
        try:
            kind, *rest = pipe.recv()
        except (EOFError, ConnectionError):
            raise GeneratorFailed(f"generator process {index} ended before its work was done") from None
        match kind:
            case "ready":
                self._ready.add(index)
            case "tick":
                self._counts[index] = (rest[0], rest[1])
                self._tick(sum(count[0] for count in self._counts), sum(count[1] for count in self._counts))
            case "result":
                self._results[index] = rest[0]
            case _:
                raise _as_error(rest[0])


def _as_error(told: object) -> BoultonError:
    return told if isinstance(told, BoultonError) else GeneratorFailed(str(told))


def _stop(pipes: Sequence[Connection]) -> None:
    for pipe in pipes:
        with suppress(ConnectionError):  # it is done already
            pipe.send(("stop",))


def _dismiss(crew: Sequence[BaseProcess]) -> None:
    """Let processes tidy up now that their pipes are closed, and end those that do not."""
    patience_s = time.monotonic() + STOP_S
    for process in crew:
        if process.pid is not None:
            process.join(max(0.0, patience_s - time.monotonic()))
            process.terminate()
            process.join()


def _child(plan: LoadPlan, index: int, pipe: Connection) -> None:
    """What a generator process runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    keep_pages()
    with suppress(ConnectionError):  # nobody is left to be told
        try:
            result = run(_obey(plan, index, pipe))
        except BoultonError as error:
            pipe.send(("error", error))
        else:
            pipe.send(("result", result))


async def _obey(plan: LoadPlan, index: int, pipe: Connection) -> WorkerResult:
    loop = asyncio.get_running_loop()
    start: asyncio.Future[float] = loop.create_future()
    stop = asyncio.Event()

    async def begin() -> float:
        pipe.send(("ready",))
        return await start

    def told() -> None:
        try:
            kind, *rest = pipe.recv()
        except (EOFError, ConnectionError):
            loop.remove_reader(pipe.fileno())
            if not start.done():
                start.set_exception(GeneratorFailed("the parent process is gone"))
            kind, rest = "stop", []
        if kind == "start":
            start.set_result(rest[0])
        else:
            stop.set()

    loop.add_reader(pipe.fileno(), told)
    return await run_worker(plan, index, Orders(begin, stop, lambda *counts: pipe.send(("tick", *counts))))
