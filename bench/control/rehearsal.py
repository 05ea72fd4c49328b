"""A minute under load: the governor's clocks travel through keeper and NVML to a simulated card, and back."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from bench.control.moments import LOCK
from bench.control.programs import (
    BOULTON,
    DidNotStart,
    Ports,
    await_daemon,
    await_keeper,
    start_daemon,
    start_keeper,
)
from bench.control.scene import MODEL, Scene, make_scene
from bench.demo.books import Books
from bench.demo.steps import TARGETS
from bench.demo.watching import watching
from protos import boulton_pb2

RATES = (60.0, 250.0, 120.0)
"""Poisson arrivals in images/s, one rate after the other: the governor has a reason to move."""
ENERGY_AGREES = 0.05
LEAST_CLOCKS = 2
NAME = "rehearsal"
_IDLE_LIMIT_S = 20.0
_SLACK_S = 120.0
_OK = 0


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a rehearsal showed. Everything about clock, power and energy is simulated.

    `clocks_mhz`: the clocks that NVML's setter was called with, in order. `nvml_j`: the energy that the
    daemon read through NVML's counter, `true_j`: what the card used meanwhile by its own account.
    `given_back`: whether the card was at its default after the daemon had ended.
    """

    seconds: float
    clocks_mhz: Sequence[int]
    in_time: int
    late: int
    nvml_j: float | None
    true_j: float
    revenue_per_hour: float
    given_back: bool
    exit_code: int | None

    @property
    def late_share(self) -> float:
        """Images late, refused or expired, over all that arrived and were not withdrawn."""
        return self.late / max(1, self.in_time + self.late)

    @property
    def kept(self) -> bool:
        """Whether clocks travelled, the energies agree, and the card was given back."""
        moved = len(set(self.clocks_mhz)) >= LEAST_CLOCKS
        agrees = self.nvml_j is not None and abs(self.nvml_j / self.true_j - 1.0) <= ENERGY_AGREES
        return moved and agrees and self.given_back and self.exit_code == 0


def rehearse(console: Console, *, seconds: float, seed: int) -> Rehearsal:
    """Serve, govern and load. Raises BuildError, DidNotStart."""
    with make_scene() as scene:
        keeper = start_keeper(scene)
        try:
            await_keeper(scene, keeper)
            return _govern(scene, console, seconds, seed)
        finally:
            keeper.end()


def _govern(scene: Scene, console: Console, seconds: float, seed: int) -> Rehearsal:
    targets = scene.directory / "targets.toml"
    targets.write_text(TARGETS, encoding="utf-8")
    daemon = start_daemon(scene, 0, NAME, "--targets", str(targets), "--no-metrics", "--max-batch", "128")
    try:
        ports = await_daemon(scene, daemon, NAME)
        decisions, true_j = _load(scene, console, ports, seconds, seed)
    finally:
        exit_code = daemon.end()
    books = Books.of(decisions)
    return Rehearsal(
        seconds,
        [
            call.arguments[0]
            for call in scene.rack.set_history(0)
            if call.function == LOCK and call.code == _OK
        ],
        books.in_time,
        books.late,
        _joules(decisions[1:]),
        true_j,
        books.revenue_per_hour(seconds),
        scene.rack.card(0).is_default,
        exit_code,
    )


def _load(
    scene: Scene, console: Console, ports: Ports, seconds: float, seed: int
) -> tuple[list[boulton_pb2.Decision], float]:
    """Return the decisions, and what the card used from the first to the last by its own account."""
    accounts_j: list[float] = []

    def tell(decision: boulton_pb2.Decision) -> None:
        accounts_j.append(scene.rack.card(0).energy_j)
        window = decision.window
        clock = f"{window.point.sm_clock_mhz} MHz asked, {window.sm_clock_actual_mhz} in force"
        rate = window.arrived / max(window.duration_s, 1e-9)
        console.print(f"{rate:6.0f} images/s, {clock}, {window.energy_j:.1f} J", highlight=False)

    with watching(f"127.0.0.1:{ports.operator}", tell) as watch:
        for number, rate in enumerate(RATES):
            _apply(scene, ports, rate, seconds / len(RATES), seed + number)
        watch.wait_until_idle(_IDLE_LIMIT_S)
        return list(watch.decisions), accounts_j[len(watch.decisions) - 1] - accounts_j[0]


def _joules(decisions: Sequence[boulton_pb2.Decision]) -> float | None:
    windows = [decision.window for decision in decisions]
    measured = bool(windows) and all(window.HasField("energy_j") for window in windows)
    return sum(window.energy_j for window in windows) if measured else None


def _apply(scene: Scene, ports: Ports, rate: float, seconds: float, seed: int) -> None:
    words = ["load", "--url", f"127.0.0.1:{ports.grpc}", "--model", MODEL, "--poisson", f"{rate:g}"]
    words += ["--duration", f"{seconds:g}", "--warmup", "0", "--seed", str(seed)]
    done = subprocess.run(
        [*BOULTON, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds + _SLACK_S,
        check=False,
        env=scene.environment,
    )
    if done.returncode:
        raise DidNotStart(f"`boulton load` exited {done.returncode}:\n{done.stderr[-2000:]}")


def show(found: Rehearsal, console: Console) -> None:
    """Print what it came to."""
    course = [clock for clock, _ in itertools.groupby(found.clocks_mhz)]
    console.print(f"clocks that travelled through NVML: {', '.join(map(str, course))} MHz", highlight=False)
    nvml = "not measured" if found.nvml_j is None else f"{found.nvml_j:.0f} J"
    lines = (
        f"images in time {found.in_time}, late {found.late} ({found.late_share:.2%})",
        f"energy by NVML's counter {nvml}, by the card's own account {found.true_j:.0f} J [simulated]",
        f"revenue {found.revenue_per_hour:.4f} an hour",
        f"the card was {'given back' if found.given_back else 'NOT given back'} at the end",
    )
    for line in lines:
        console.print(escape(line), highlight=False)
    console.print("kept" if found.kept else "BROKEN", style="green" if found.kept else "red")
