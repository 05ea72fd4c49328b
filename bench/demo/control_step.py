"""The demo's last step: a clock locked through the keeper, and given back when the daemon is killed."""

from __future__ import annotations

import os
import shutil

from bench.control.daemon_kills import LIMIT_S
from bench.control.programs import (
    DidNotStart,
    Program,
    await_daemon,
    await_keeper,
    start_daemon,
    start_keeper,
)
from bench.control.scene import PROFILE, Scene, make_scene
from bench.control.truth import await_default
from bench.demo.stage import DemoFailed, Kind, Stage
from bench.standin.build import BuildError

NAME = "demo"


def gpu_control(stage: Stage) -> None:
    """Lock the clock of a simulated card, kill the daemon with SIGKILL, and see the clock come back."""
    stage.step("The clock of a GPU, and how it is given back")
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        stage.say(
            f"Left out: there is no C compiler {compiler!r} here to build the stand-in NVML library with."
        )
        return
    stage.say(
        "No GPU is touched: a stand-in for NVIDIA's management library simulates a card. The keeper, the "
        "daemon, the socket between them, the calls of NVML and the kill are real."
    )
    try:
        with make_scene() as scene:
            _with_keeper(stage, scene)
    except (BuildError, DidNotStart) as error:
        raise DemoFailed(str(error)) from error


def _with_keeper(stage: Stage, scene: Scene) -> None:
    stage.command(["boulton", "keeper", "--config", str(scene.keeper_config)])
    keeper = start_keeper(scene)
    try:
        await_keeper(scene, keeper)
        _lock_and_kill(stage, scene)
    finally:
        keeper.end()


def _lock_and_kill(stage: Stage, scene: Scene) -> None:
    engine = ["--engine", "simulated", "--gpu", PROFILE]
    stage.command(["boulton", "serve", *engine, "--device", scene.uuids[0], "--control", "..."])
    daemon = start_daemon(scene, 0, NAME)
    try:
        await_daemon(scene, daemon, NAME)
        locked = scene.rack.card(0).locked_sm_mhz
        if locked is None:
            raise DemoFailed(f"the daemon governs, but the card's clock is not locked:\n{daemon.text}")
        stage.say(f"{Kind.SIMULATED} the card's SM clock is locked at {locked[1]} MHz")
        _kill(stage, scene, daemon)
    finally:
        if daemon.alive:
            daemon.kill()


def _kill(stage: Stage, scene: Scene, daemon: Program) -> None:
    stage.command(["kill", "-9", str(daemon.pid)])
    restored_s = await_default(scene, 0, daemon.kill(), LIMIT_S)
    if restored_s is None:
        raise DemoFailed(f"the clock was not given back within {LIMIT_S:g} s of the daemon's death")
    stage.found(
        f"{Kind.SIMULATED} the daemon was killed, and {restored_s * 1e3:.0f} ms later the keeper had given "
        "the card its own clock back"
    )
