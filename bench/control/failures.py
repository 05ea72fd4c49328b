"""Every function of NVML that is called, failing with every code: from the start, and at work."""

from __future__ import annotations

import itertools
import json
import queue
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.control.promises import Phase, Trial
from bench.control.scene import Scene, make_scene
from bench.control.trial import KINDS, Case, attempt, live_once
from bench.standin.build import build
from optimizer.devices.nvml.failures import name_of

FUNCTIONS = (
    "nvmlInit",
    "nvmlShutdown",
    "nvmlSystemGetDriverVersion",
    "nvmlDeviceGetCount",
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetIndex",
    "nvmlDeviceGetArchitecture",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetPersistenceMode",
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetSupportedMemoryClocks",
    "nvmlDeviceGetSupportedGraphicsClocks",
    "nvmlDeviceGetApplicationsClock",
    "nvmlDeviceGetDefaultApplicationsClock",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetFieldValues",
    "field:185",
    "field:186",
    "nvmlDeviceGetPowerManagementLimit",
    "nvmlDeviceGetPowerManagementDefaultLimit",
    "nvmlDeviceGetPowerManagementLimitConstraints",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceSetGpuLockedClocks",
    "nvmlDeviceResetGpuLockedClocks",
    "nvmlDeviceSetMemoryLockedClocks",
    "nvmlDeviceResetMemoryLockedClocks",
    "nvmlDeviceSetApplicationsClocks",
    "nvmlDeviceResetApplicationsClocks",
    "nvmlDeviceSetPowerManagementLimit",
)
"""Every function that the product calls; which of them a daemon and its keeper call is found out."""
ANOTHER_WAY = (("pascal", "nvmlDeviceGetApplicationsClock"),)
"""Kinds of card beside the first on which a failure of a function means something else."""
CODES = (1, 2, 3, 4, 6, 9, 10, 12, 13, 15, 16, 18, 19, 26, 27, 999)


def run_all(
    console: Console,
    *,
    at_once: int,
    functions: Sequence[str] = (),
    codes: Sequence[int] = (),
    journal: Path | None = None,
) -> list[Case]:
    """Find out which functions are called, then fail them one by one. Raises BuildError, DidNotStart.

    Args:
        console: told how far it is.
        at_once: so many trials run beside each other, each on cards of its own.
        functions: only these; empty: all that are called.
        codes: only these; empty: all.
        journal: every case is added to this file as it ends, and those in it are not tried again.
    """
    with ExitStack() as exits:
        library = build(Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="boulton-standin-"))))
        trials = [
            Trial(kind, function, code, phase)
            for kind, function, phase in _called(console, library)
            for code in codes or CODES
            if not functions or function in functions
        ]
        known = {} if journal is None else read_journal(journal)
        if known:
            console.print(f"{len(known)} cases are known from {journal}", highlight=False)
        stages = [
            {kind: exits.enter_context(make_scene(kind=kind, library=library)) for kind in KINDS}
            for _ in range(at_once)
        ]
        new = _attempt_all(console, stages, [trial for trial in trials if trial not in known], journal)
    return [known.get(trial) or new[trial] for trial in trials]


def _attempt_all(
    console: Console,
    stages: Sequence[Mapping[str, Scene]],
    trials: Sequence[Trial],
    journal: Path | None,
) -> dict[Trial, Case]:
    free: queue.SimpleQueue[Mapping[str, Scene]] = queue.SimpleQueue()
    for stage in stages:
        free.put(stage)

    def work(trial: Trial) -> Case:
        stage = free.get()
        try:
            return attempt(stage[trial.kind], trial)
        finally:
            free.put(stage)

    cases: dict[Trial, Case] = {}
    with Progress(console=console, transient=True) as progress, ThreadPoolExecutor(len(stages)) as pool:
        task = progress.add_task("failures", total=len(trials))
        try:
            for done in as_completed([pool.submit(work, trial) for trial in trials]):
                case = done.result()
                cases[case.trial] = case
                if journal is not None:
                    _write_journal(journal, case)
                progress.advance(task)
        finally:  # told to stop: those under way end in order, no others begin
            pool.shutdown(cancel_futures=True)
    return cases


def read_journal(journal: Path) -> dict[Trial, Case]:
    """Return the cases in a journal; none when there is no such file. Its last line may be cut off."""
    cases: dict[Trial, Case] = {}
    lines = journal.read_text(encoding="utf-8").splitlines(keepends=True) if journal.exists() else []
    for line in lines:
        if line.endswith("\n"):
            values = json.loads(line)
            words = values.pop("trial")
            trial = Trial(words["kind"], words["function"], words["code"], Phase(words["phase"]))
            cases[trial] = Case(trial, **values)
    return cases


def _write_journal(journal: Path, case: Case) -> None:
    with journal.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(case)) + "\n")


def _called(console: Console, library: Path) -> list[tuple[str, str, Phase]]:
    """Which functions keeper and daemon call, from when on, each with the first kind of card that has it."""
    found: dict[tuple[str, str], list[Phase]] = {}
    for kind in KINDS:
        with make_scene(kind=kind, library=library) as scene:
            called = live_once(scene, kind, FUNCTIONS)
        for function in FUNCTIONS:
            phases = [phase for phase in Phase if function in called[phase]]
            known = any(function == name for _, name in found)
            if phases and (not known or (kind, function) in ANOTHER_WAY):
                found[kind, function] = phases
    names = dict.fromkeys(function for _, function in found)
    console.print(f"{len(names)} functions of NVML are called: {', '.join(names)}", highlight=False)
    return [(kind, function, phase) for (kind, function), phases in found.items() for phase in phases]


def show(cases: Sequence[Case], console: Console) -> None:
    """Print outcomes by function, then every problem."""
    table = Table(title=f"{len(cases)} failures on simulated cards")
    for heading in ("function", "fails", "what the daemon did", "problems"):
        table.add_column(heading)
    for (function, phase), group in _grouped(cases):
        outcomes = Counter(case.outcome for case in group)
        said = "; ".join(f"{outcome} ({times})" for outcome, times in outcomes.items())
        table.add_row(function, phase, said, str(sum(not case.kept for case in group) or ""))
    console.print(table)
    for case in cases:
        for problem in case.problems:
            code = name_of(case.trial.code)
            where = f"{case.trial.function} {code} {case.trial.phase} ({case.trial.kind})"
            console.print(f"{where}: {problem}", style="red", markup=False)
    broken = sum(not case.kept for case in cases)
    console.print(f"{len(cases) - broken} of {len(cases)} as promised", style="red" if broken else "green")


def _grouped(cases: Iterable[Case]) -> Iterator[tuple[tuple[str, str], list[Case]]]:
    def key(case: Case) -> tuple[str, str]:
        return case.trial.function, case.trial.phase.value

    for found, group in itertools.groupby(sorted(cases, key=key), key):
        yield found, list(group)
