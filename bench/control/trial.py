"""One function of NVML fails with one code while a keeper and a daemon live: what becomes of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import grpc

from bench.control import seen
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
from bench.control.promises import (
    LOST,
    ON,
    SETS_CLOCKS,
    SHUTDOWN,
    Lines,
    Phase,
    Trial,
    daemon_problems,
    keeper_problems,
    keeper_starts,
    metric_problems,
    silence_problems,
    starts,
    state_promised,
)
from bench.control.scene import Scene
from bench.control.truth import await_true, is_default
from optimizer.devices.nvml.failures import Remedy, name_of

KINDS: Mapping[str, tuple[str, ...]] = {
    "hopper": ("--memory-clock-mhz", "1593", "--power-limit-w", "300"),
    "volta": (),
    "pascal": (),
}
"""Cards that between them have every function called, and how the daemon is told to use each."""
TURNS = 8
"""Decisions under the failure before it is judged: a refused clock is asked for again within them."""
END_LIMIT_S = 30.0
RESTORE_LIMIT_S = 3.0
RECOVER_LIMIT_S = 30.0
NAME = "daemon"
_FLAGS = ("--metrics-port", "0", "--decision-interval-s", "0.1")
_TURN_LIMIT_S = 30.0
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Case:
    """What became of a trial.

    Args:
        trial: what was tried.
        outcome: how far the daemon got.
        calls: how often the function was called while it failed, by daemon and keeper.
        said: what both said of it.
        problems: what should not have been.
    """

    trial: Trial
    outcome: str
    calls: int
    said: Sequence[str]
    problems: Sequence[str]

    @property
    def kept(self) -> bool:
        """Whether all went as promised."""
        return not self.problems


@dataclass(slots=True)
class _Play:
    """A trial under way, and what is wrong with it so far."""

    scene: Scene
    trial: Trial
    lines: Lines
    calls_before: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def calls(self) -> int:
        return self.scene.rack.calls(self.trial.function) - self.calls_before

    def fail(self) -> None:
        self.calls_before = self.scene.rack.calls(self.trial.function)
        self.scene.rack.fail(self.trial.function, self.trial.code)


def live_once(scene: Scene, kind: str, functions: Sequence[str]) -> dict[Phase, frozenset[str]]:
    """Let a keeper and a daemon live without any failure; return what they call, from when on."""

    def called() -> dict[str, int]:
        return {function: scene.rack.calls(function) for function in functions}

    before = called()
    with ExitStack() as exits:
        keeper = start_keeper(scene)
        exits.callback(keeper.end)
        await_keeper(scene, keeper)
        daemon = start_daemon(scene, 0, NAME, *_FLAGS, *KINDS[kind])
        exits.callback(daemon.end)
        ports = await_daemon(scene, daemon, NAME)
        pin_random_clock(ports, random.Random(0))
        ready = called()
        _await_turns(ports, TURNS)
    after = called()
    return {
        Phase.START: frozenset(name for name in functions if after[name] > before[name]),
        Phase.WORK: frozenset(name for name in functions if after[name] > ready[name]),
    }


def attempt(scene: Scene, trial: Trial) -> Case:
    """Let a keeper and a daemon live through one failure."""
    _clean(scene)
    play = _Play(scene, trial, Lines(trial))
    if trial.phase is Phase.START:
        play.fail()
    keeper = start_keeper(scene)
    keeper_listens = _ready(lambda: await_keeper(scene, keeper))
    if keeper_listens != keeper_starts(trial):
        play.problems.append(f"the keeper {'started' if keeper_listens else 'did not start'}")
    daemon = start_daemon(scene, 0, NAME, *_FLAGS, *KINDS[trial.kind])
    outcome = _outcome(play, daemon)
    serving, calls = play.lines.of(daemon.text), play.calls
    _end_daemon(play, daemon, outcome)
    _end_keeper(play, keeper, keeper_listens=keeper_listens)
    ending = play.lines.of(daemon.text)[len(serving) :]
    kept = play.lines.of(keeper.text)
    play.problems += daemon_problems(serving, ending)
    play.problems += keeper_problems(kept)
    play.problems += silence_problems(trial, play.calls, [*serving, *ending, *kept])
    if calls and outcome.startswith("served"):
        play.problems += silence_problems(trial, calls, serving)
    for program in (daemon, keeper):
        if "Traceback" in program.text:
            play.problems.append(f"a traceback in {program.log.name}")
    return Case(trial, outcome, play.calls, (*serving, *ending, *kept), tuple(play.problems))


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


def _outcome(play: _Play, daemon: Program) -> str:
    """See what the daemon does; note what it should not do, and return how far it got."""
    try:
        ports = await_daemon(play.scene, daemon, NAME)
    except DidNotStart:
        return _did_not_start(play, daemon)
    try:
        if play.trial.phase is Phase.WORK:
            play.fail()
            pin_random_clock(ports, random.Random(0))
        return _serve(play, ports)
    except (OSError, grpc.RpcError) as error:
        play.problems.append(f"a question to the daemon failed: {error}")
        return "crashed" if not daemon.alive else "did not answer"


def _did_not_start(play: _Play, daemon: Program) -> str:
    daemon.process.wait(END_LIMIT_S)
    if starts(play.trial):
        play.problems.append("the daemon did not start")
    if daemon.process.returncode == 0:
        play.problems.append("the daemon did not start and exited 0")
    if not play.lines.of(daemon.text):
        play.problems.append(f"it did not start without naming {name_of(play.trial.code)}")
    return "did not start, and said why"


def _serve(play: _Play, ports: Ports) -> str:
    if not starts(play.trial):
        play.problems.append("the daemon started without its GPU")
    if not _await_turns(ports, TURNS):
        play.problems.append("the governor stands still")
    if not seen.answers(ports):
        play.problems.append("the daemon does not answer")
    text, calls = seen.metrics(ports), play.calls
    state, promised = seen.control_state(text), state_promised(play.trial, calls)
    if state != promised:
        play.problems.append(f"control is {state}, expected {promised}")
    if calls:
        counted = seen.counts(text, play.trial.called, play.trial.code)
        play.problems += metric_problems(play.trial, counted=counted, state=state)
    if state == LOST:
        _expect_no_more_sets(play, ports)
    elif state != ON and play.trial.remedy is Remedy.RETRY:
        _expect_recovery(play, ports)
    return f"served; control {state}"


def _expect_no_more_sets(play: _Play, ports: Ports) -> None:
    """Whoever has lost its GPU stops acting."""

    def sets() -> int:
        return sum(map(play.scene.rack.calls, SETS_CLOCKS))

    before = sets()
    _await_turns(ports, TURNS // 2)
    if sets() != before:
        play.problems.append("it goes on setting a GPU that is lost")


def _expect_recovery(play: _Play, ports: Ports) -> None:
    """What passes by itself is tried again until it has passed."""
    play.scene.rack.clear_failures()
    if not await_true(lambda: seen.control_state(seen.metrics(ports)) == ON, RECOVER_LIMIT_S, _LOOK_S):
        play.problems.append(f"control is not on again within {RECOVER_LIMIT_S:g} s of the failure's end")


def _await_turns(ports: Ports, turns: int) -> bool:
    """Wait until the governor has decided so often from now on; return whether it has."""
    until = seen.decisions(seen.metrics(ports)) + turns
    return await_true(lambda: seen.decisions(seen.metrics(ports)) >= until, _TURN_LIMIT_S, _LOOK_S)


def _end_daemon(play: _Play, daemon: Program, outcome: str) -> None:
    code = daemon.end(END_LIMIT_S) if daemon.alive else daemon.process.returncode
    if code is None:
        play.problems.append("the daemon did not end when told to")
    elif outcome.startswith("served") and code != 0:
        play.problems.append(f"the daemon exited {code}")


def _end_keeper(play: _Play, keeper: Program, *, keeper_listens: bool) -> None:
    """The failure is over: the card must be given back, and the keeper end as told."""
    scene = play.scene
    if play.trial.function != SHUTDOWN:  # which the keeper calls last of all
        scene.rack.clear_failures()
    if not await_true(lambda: is_default(scene, 0), RESTORE_LIMIT_S):
        play.problems.append(f"the card was not given back within {RESTORE_LIMIT_S:g} s of the failure's end")
    code = keeper.end(END_LIMIT_S) if keeper.alive else keeper.process.returncode
    if code is None:
        play.problems.append("the keeper did not end when told to")
    elif code != 0 and keeper_listens:
        play.problems.append(f"the keeper exited {code}")
    if not is_default(scene, 0):
        play.problems.append("the card is not as it was")
