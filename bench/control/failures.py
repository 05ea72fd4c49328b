"""Every function of NVML that is called, failing with every code: from the start, and at work."""

from __future__ import annotations

import itertools
import queue
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.control.scene import Scene, make_scene
from bench.control.trial import KINDS, Case, Phase, Trial, attempt, live_once
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
CODES = (1, 2, 3, 4, 6, 9, 10, 12, 13, 15, 16, 18, 19, 26, 27, 999)


def run_all(
    console: Console, *, at_once: int, functions: Sequence[str] = (), codes: Sequence[int] = ()
) -> list[Case]:
    """Find out which functions are called, then fail them one by one. Raises BuildError, DidNotStart."""
    trials = [
        Trial(kind, function, code, phase)
        for kind, function in _called(console)
        for code, phase in itertools.product(codes or CODES, Phase)
        if not functions or function in functions
    ]
    with ExitStack() as exits, Progress(console=console, transient=True) as progress:
        task = progress.add_task("failures", total=len(trials))
        stages: queue.SimpleQueue[Mapping[str, Scene]] = queue.SimpleQueue()
        for _ in range(at_once):
            stages.put({kind: exits.enter_context(make_scene(kind=kind)) for kind in KINDS})

        def work(trial: Trial) -> Case:
            stage = stages.get()
            try:
                return attempt(stage[trial.kind], trial)
            finally:
                stages.put(stage)
                progress.advance(task)

        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(work, trials))


def _called(console: Console) -> list[tuple[str, str]]:
    """Which functions keeper and daemon call, each with the first kind of card that has it called."""
    found: dict[str, str] = {}
    for kind in KINDS:
        with make_scene(kind=kind) as scene:
            live_once(scene, kind)
            for function in FUNCTIONS:
                if scene.rack.calls(function):
                    found.setdefault(function, kind)
    console.print(f"{len(found)} functions of NVML are called: {', '.join(found)}", highlight=False)
    return [(kind, function) for function, kind in found.items()]


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
