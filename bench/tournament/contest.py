"""Playing a plan on several processes, skipping what is done. What fails is told and ends nothing else."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from bench.progress import CountingBar
from bench.tournament.ground import fingerprint, lay_ground
from bench.tournament.plan import Cell, Plan, Settings
from bench.tournament.playing import play, played_fingerprint
from bench.tournament.results import Failure, Ground, Played
from bench.tournament.store import Store

Result = Ground | Played | Failure
Job = Callable[[ProcessPoolExecutor], Future[Result]]
LINE_EVERY_S = 60.0
_AHEAD = 2
"""Jobs under way for each worker: enough that none waits, few enough that cells finish one by one."""


@dataclass(slots=True)
class Results:
    """What a tournament came to. `simulated` counts the results that were not there before."""

    grounds: list[Ground] = field(default_factory=list)
    played: list[Played] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    simulated: int = 0


def hold(plan: Plan, folder: Path, workers: int, *, fresh: Sequence[str] = ()) -> Results:
    """Play the plan and return all results, in its order. What lies in the folder is not simulated again.

    Args:
        plan: cells and policies.
        folder: where results are kept.
        workers: processes.
        fresh: policies whose earlier results are dropped first.
    """
    store = Store(folder)
    for cell in plan.cells:
        for policy in fresh:
            store.drop(cell, policy)
    results = Results()
    with (
        closing(_results(plan, store, folder, workers)) as found,
        CountingBar("simulating", "simulated, last", LINE_EVERY_S, len(plan.cells) + len(plan)) as progress,
    ):
        for result, new in found:
            _sort_in(result, results)
            results.simulated += new
            skipped = len(plan.policies) if isinstance(result, Failure) and not result.policy else 0
            progress.done(1 + skipped)
            progress.doing(_name(result))
    _put_in_order(results, plan)
    return results


def _results(
    plan: Plan, store: Store, folder: Path, workers: int
) -> Generator[tuple[Result, bool], None, None]:
    """Yield every result, and whether it is new, as soon as it is there."""
    context = multiprocessing.get_context("spawn")
    todo: deque[Job] = deque()
    for cell in plan.cells:
        ground = _kept_ground(store, cell, plan.settings)
        if ground is None:
            todo.append(_ground_job(folder, cell, plan.settings))
            continue
        yield ground, False
        for kept in _kept_or_queued(plan, store, folder, ground, todo.append):
            yield kept, False
    if not todo:
        return
    with ProcessPoolExecutor(workers, context, initializer=_leave_interrupts_to_the_parent) as pool:
        try:
            for result in _work(pool, todo, workers):
                yield result, not isinstance(result, Failure)
                if isinstance(result, Ground):
                    first = _kept_or_queued(plan, store, folder, result, todo.appendleft)
                    for kept in first:
                        yield kept, False
        except BaseException:
            _abandon(pool)
            raise


def _kept_or_queued(
    plan: Plan, store: Store, folder: Path, ground: Ground, queue: Callable[[Job], None]
) -> Iterator[Played]:
    """Yield what policies did in a cell; queue those that have yet to play."""
    wanted = played_fingerprint(ground)
    for policy in plan.policies:
        kept = store.played(ground.cell, policy, wanted)
        if kept is None:
            queue(_play_job(folder, ground, policy, plan.settings))
        else:
            yield kept


def _work(pool: ProcessPoolExecutor, todo: deque[Job], workers: int) -> Iterator[Result]:
    """Run jobs until none is left; more may be queued meanwhile."""
    under_way: set[Future[Result]] = set()
    while todo or under_way:
        while todo and len(under_way) < _AHEAD * workers:
            under_way.add(todo.popleft()(pool))
        done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


def _ground_job(folder: Path, cell: Cell, settings: Settings) -> Job:
    return lambda pool: pool.submit(_lay, folder, cell, settings)


def _play_job(folder: Path, ground: Ground, policy: str, settings: Settings) -> Job:
    return lambda pool: pool.submit(_play, folder, ground, policy, settings)


def _lay(folder: Path, cell: Cell, settings: Settings) -> Ground | Failure:
    """In a worker: prepare a cell and keep it. Whatever goes wrong concerns this cell alone."""
    try:
        ground = lay_ground(cell, settings)
        Store(folder).keep_ground(ground)
    except Exception as error:
        return Failure(cell, "", _said(error))
    return ground


def _play(folder: Path, ground: Ground, policy: str, settings: Settings) -> Played | Failure:
    """In a worker: let a policy play and keep what it did. A policy that fails concerns itself alone."""
    try:
        played = play(ground, policy, settings)
        Store(folder).keep_played(played)
    except Exception as error:
        return Failure(ground.cell, policy, _said(error))
    return played


def _said(error: Exception) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return f"{type(error).__name__}: {text}"


def _kept_ground(store: Store, cell: Cell, settings: Settings) -> Ground | None:
    """A cell whose GPU or network is unknown has nothing kept; laying its ground says what is wrong."""
    try:
        return store.ground(cell, fingerprint(cell, settings))
    except (KeyError, ValueError):
        return None


def _abandon(pool: ProcessPoolExecutor) -> None:
    """End the workers at once: half results are never kept, whole ones already are."""
    for worker in multiprocessing.active_children():
        worker.terminate()
    pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _sort_in(result: Result, results: Results) -> None:
    if isinstance(result, Ground):
        results.grounds.append(result)
    elif isinstance(result, Played):
        results.played.append(result)
    else:
        results.failures.append(result)


def _name(result: Result) -> str:
    return f"{result.cell}" if isinstance(result, Ground) else f"{result.cell} {result.policy}".rstrip()


def _put_in_order(results: Results, plan: Plan) -> None:
    """Results come as they finish; reports shall not depend on that."""
    cells = {cell: index for index, cell in enumerate(plan.cells)}
    policies = {policy: index for index, policy in enumerate(plan.policies)}
    results.grounds.sort(key=lambda ground: cells[ground.cell])
    results.played.sort(key=lambda run: (cells[run.cell], policies[run.policy]))
    results.failures.sort(key=lambda failure: (cells[failure.cell], policies.get(failure.policy, -1)))
