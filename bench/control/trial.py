"""One function of NVML fails with one code while a keeper and a daemon live: what becomes of them."""

from __future__ import annotations

import random
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import grpc
import numpy as np

from bench.control.moments import pin_random_clock
from bench.control.programs import (
    DidNotStart,
    Ports,
    Program,
    await_daemon,
    await_keeper,
    start_daemon,
    start_keeper,
)
from bench.control.scene import MODEL, VALUES, Scene
from bench.control.truth import await_true, is_default
from optimizer.devices.nvml.failures import FUNCTION_NOT_FOUND, NOT_SUPPORTED, Remedy, name_of, remedy_for
from protos import grpc_service_pb2 as wire
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from server.devices.served import ControlState

KINDS: Mapping[str, tuple[str, ...]] = {
    "hopper": ("--memory-clock-mhz", "1593", "--power-limit-w", "300"),
    "volta": (),
    "pascal": (),
}
"""Cards that between them have every function called, and how the daemon is told to use each."""
SETTLE_S = 1.0
RPC_LIMIT_S = 5.0
END_LIMIT_S = 20.0
RESTORE_LIMIT_S = 3.0
NAME = "daemon"
_FLAGS = ("--metrics-port", "0", "--decision-interval-s", "0.1")
_GONE = (Remedy.STOP, Remedy.ABSENT)
STATES = tuple(state.value for state in ControlState)
_SETS_CLOCKS = ("nvmlDeviceSetGpuLockedClocks", "nvmlDeviceSetApplicationsClocks")
# A card without locked clocks is set by its application clocks.
_OTHER_WAY = {("nvmlDeviceSetGpuLockedClocks", code) for code in (NOT_SUPPORTED, FUNCTION_NOT_FOUND)}
_RESETS = "nvmlDeviceReset"
# What is asked once, to find out what may be set, says nothing about the GPU later.
_ASKED_ONCE = (
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetPowerManagementLimitConstraints",
)


class Phase(StrEnum):
    """From when on a function fails."""

    START = "from the start"
    WORK = "at work"


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried: one function fails with one code on one kind of card."""

    kind: str
    function: str
    code: int
    phase: Phase


@dataclass(frozen=True, slots=True)
class Case:
    """What became of a trial: how far the daemon got, and what it should not have done."""

    trial: Trial
    outcome: str
    problems: Sequence[str]

    @property
    def kept(self) -> bool:
        """Whether all went as promised."""
        return not self.problems


def live_once(scene: Scene, kind: str) -> None:
    """Let a keeper and a daemon live without any failure, so that the rack counts what they call."""
    keeper = start_keeper(scene)
    await_keeper(scene, keeper)
    daemon = start_daemon(scene, 0, NAME, *_FLAGS, *KINDS[kind])
    try:
        pin_random_clock(await_daemon(scene, daemon, NAME), random.Random(0))
        time.sleep(SETTLE_S)
    finally:
        daemon.end()
        keeper.end()


def attempt(scene: Scene, trial: Trial) -> Case:
    """Let a keeper and a daemon live through one failure."""
    _clean(scene)
    problems: list[str] = []
    if trial.phase is Phase.START:
        scene.rack.fail(trial.function, trial.code)
    keeper = start_keeper(scene)
    keeper_listens = _ready(lambda: await_keeper(scene, keeper))
    daemon = start_daemon(scene, 0, NAME, *_FLAGS, *KINDS[trial.kind])
    try:
        outcome = _watch(scene, trial, daemon, problems)
    except (OSError, grpc.RpcError) as error:
        outcome = "did not answer"
        problems.append(f"a question to the daemon failed: {error}")
    finally:
        code = daemon.end(END_LIMIT_S) if daemon.alive else daemon.process.returncode
    if code is None:
        problems.append("the daemon did not end when told to")
    elif outcome.startswith("served") and code != 0:
        problems.append(f"the daemon exited {code}")
    problems += _afterwards(scene, keeper, keeper_listens=keeper_listens)
    problems += _log_problems(trial, daemon, keeper)
    return Case(trial, outcome, tuple(problems))


def _clean(scene: Scene) -> None:
    scene.rack.clear_failures()
    for log in (scene.directory / "keeper.log", scene.directory / NAME / "log"):
        log.unlink(missing_ok=True)


def _ready(wait: Callable[[], object]) -> bool:
    try:
        wait()
    except DidNotStart:
        return False
    return True


def _watch(scene: Scene, trial: Trial, daemon: Program, problems: list[str]) -> str:
    """See what the daemon does; note what it should not do, and return how far it got."""
    try:
        ports = await_daemon(scene, daemon, NAME)
    except DidNotStart:
        return _did_not_start(trial, daemon, problems)
    if trial.phase is Phase.WORK:
        scene.rack.fail(trial.function, trial.code)
        pin_random_clock(ports, random.Random(0))
    time.sleep(SETTLE_S)
    if not daemon.alive:
        problems.append(f"the daemon crashed with {daemon.process.returncode}")
        return "crashed"
    if not _answers(ports):
        problems.append("the daemon does not answer")
    metrics = _metrics(ports)
    state = next((name for name in STATES if f'state="{name}"}} 1.0' in metrics), "unknown")
    problems += _state_problems(trial, state, metrics)
    return f"served; control {state}"


def _did_not_start(trial: Trial, daemon: Program, problems: list[str]) -> str:
    daemon.process.wait(END_LIMIT_S)
    if trial.phase is Phase.WORK:
        problems.append("the daemon did not start although nothing failed yet")
    if name_of(trial.code) not in daemon.text:
        problems.append(f"it did not start without naming {name_of(trial.code)}")
    return "did not start, and said why"


def _answers(ports: Ports) -> bool:
    request = wire.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="x", datatype="FP32", shape=[1, VALUES])
    request.raw_input_contents.append(np.zeros(VALUES, np.float32).tobytes())
    with grpc.insecure_channel(f"127.0.0.1:{ports.grpc}") as channel:
        try:
            GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=RPC_LIMIT_S)
        except grpc.RpcError:
            return False
    return True


def _metrics(ports: Ports) -> str:
    url = f"http://127.0.0.1:{ports.metrics}/metrics"
    with urllib.request.urlopen(url, timeout=RPC_LIMIT_S) as answer:
        return str(answer.read().decode())


def _state_problems(trial: Trial, state: str, metrics: str) -> Iterator[str]:
    """Whether control degraded as it should: by what the daemon itself saw failing, and by what is set."""
    seen = _counted(trial, metrics)
    gone = remedy_for(trial.code) in _GONE
    if trial.phase is Phase.START:
        lost = seen and gone and trial.function not in _ASKED_ONCE
        allowed = {"lost"} if lost else {"on", "refused", "unavailable", "lost"}
    elif trial.function in _SETS_CLOCKS:
        allowed = {"refused"} if (trial.function, trial.code) not in _OTHER_WAY else {"on"}
    elif trial.function.startswith(_RESETS) or not seen:
        allowed = {"on", "refused"}
    else:
        allowed = {"lost"} if gone else {"on", "refused"}
    if state not in allowed:
        yield f"control is {state}, expected {' or '.join(sorted(allowed))}"


def _counted(trial: Trial, metrics: str) -> bool:
    function = "nvmlDeviceGetFieldValues" if trial.function.startswith("field:") else trial.function
    labels = f'function="{function}"', f'code="{name_of(trial.code)}"'
    return any(
        line.startswith("boulton_nvml_failures_total") and all(label in line for label in labels)
        for line in metrics.splitlines()
    )


def _afterwards(scene: Scene, keeper: Program, *, keeper_listens: bool) -> Iterator[str]:
    """The failure is over: the card must be given back, and the keeper end as told."""
    scene.rack.clear_failures()
    if not await_true(lambda: is_default(scene, 0), RESTORE_LIMIT_S):
        yield f"the card was not given back within {RESTORE_LIMIT_S:g} s of the failure's end"
    code = keeper.end(END_LIMIT_S) if keeper.alive else keeper.process.returncode
    if code is None:
        yield "the keeper did not end when told to"
    elif code != 0 and keeper_listens:
        yield f"the keeper exited {code}"
    if not is_default(scene, 0):
        yield "the card is not as it was"


def _log_problems(trial: Trial, *programs: Program) -> Iterator[str]:
    for program in programs:
        if "Traceback" in program.text:
            yield f"a traceback in {program.log.name}"
        yield from _said_too_often(trial, program)


def _said_too_often(trial: Trial, program: Program) -> Iterator[str]:
    """One failure is one line for each consequence: not read, not set, a client refused, not given back.

    That a refusal was repeated may be said after a while, with the number of times.
    """
    said = [line for line in program.text.splitlines() if f"{name_of(trial.code)} (" in line]
    first = [line for line in said if not line.endswith("more like this)")]
    for (level, part, _), times in Counter(tuple(line.split()[1:4]) for line in first).items():
        if times > 1:
            yield f"{times} lines of {level} by {part} about one failure: {' / '.join(first)}"
