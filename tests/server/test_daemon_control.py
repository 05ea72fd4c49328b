"""The daemon with `--control`: real keeper, real nvidia-ml-py, cards of the stand-in library."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable

import grpc
import numpy as np
import pytest

from bench.control.programs import (
    Program,
    await_keeper,
    ports_of,
    start_daemon,
    start_keeper,
)
from bench.control.scene import MODEL, VALUES, Scene, make_scene
from bench.control.truth import await_true, is_default
from protos import grpc_service_pb2 as pb
from protos import grpc_service_pb2_grpc as pb_grpc

NAME = "daemon"
LONG_S = 60.0
NO_PERMISSION = 4


pytest_plugins = ["control_scene"]
Start = Callable[..., Program]  # takes further flags; the daemon is ready


@pytest.fixture
def daemon(keeper: Program, start: Start) -> Program:
    return start()


def control_is(scene: Scene, state: str) -> bool:
    return f'state="{state}"}} 1.0' in metrics(scene)


def metrics(scene: Scene) -> str:
    url = f"http://127.0.0.1:{ports_of(scene, NAME).metrics}/metrics"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def answers(scene: Scene) -> bool:
    request = pb.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="x", datatype="FP32", shape=(1, VALUES))
    request.raw_input_contents.append(np.zeros(VALUES, np.float32).tobytes())
    with grpc.insecure_channel(f"127.0.0.1:{ports_of(scene, NAME).grpc}") as channel:
        answer = pb_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30)
    return answer.outputs[0].shape == [1, VALUES]


def locked(scene: Scene) -> bool:
    return scene.rack.card(0).locked_sm_mhz is not None


def lines(program: Program, text: str) -> list[str]:
    return [line for line in program.text.splitlines() if text in line]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_told_to_stop_it_gives_the_clock_back(scene: Scene, daemon: Program, number: signal.Signals) -> None:
    assert locked(scene)
    assert control_is(scene, "on")
    daemon.process.send_signal(number)
    assert daemon.process.wait(LONG_S) == 0
    assert is_default(scene, 0)


def test_killed_its_clock_is_given_back(scene: Scene, daemon: Program) -> None:
    assert locked(scene)
    daemon.kill()
    assert await_true(lambda: is_default(scene, 0), LONG_S)


def test_a_clock_that_somebody_else_lifted_is_set_again(scene: Scene, daemon: Program) -> None:
    scene.rack.keep_busy(0, LONG_S)  # an idle card explains every clock
    program = "import pynvml as n; n.nvmlInit(); n.nvmlDeviceSetGpuLockedClocks(%s, 300, 300)"
    program %= f"n.nvmlDeviceGetHandleByUUID({scene.uuids[0]!r})"
    subprocess.run([sys.executable, "-c", program], env=scene.environment, check=True)
    before_mhz = scene.cards[0].sm_clocks_mhz[-1]
    assert await_true(lambda: scene.rack.card(0).locked_sm_mhz == (before_mhz, before_mhz), LONG_S)


def test_a_drain_that_does_not_end_does_not_keep_the_clock(
    scene: Scene, keeper: Program, start: Start
) -> None:
    scene.rack.fail("standinRunBatch", 0, delay_s=LONG_S)  # the first batch never ends
    daemon = start("--drain-timeout-s", f"{LONG_S:g}")
    request = pb.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="x", datatype="FP32", shape=(1, VALUES))
    request.raw_input_contents.append(np.zeros(VALUES, np.float32).tobytes())
    with grpc.insecure_channel(f"127.0.0.1:{ports_of(scene, NAME).grpc}") as channel:
        call = pb_grpc.GRPCInferenceServiceStub(channel).ModelInfer.future(request, timeout=LONG_S)
        assert await_true(lambda: scene.rack.calls("standinRunBatch") > 0, LONG_S)
        daemon.process.send_signal(signal.SIGTERM)
        assert await_true(lambda: is_default(scene, 0), LONG_S)
        assert daemon.alive, "the batch is still under way"
        assert not call.done()
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(LONG_S) == 128 + signal.SIGTERM, "a second signal ends it at once"
    assert is_default(scene, 0)


def test_ended_at_once_while_a_set_is_under_way_it_leaves_the_card_to_the_keeper(
    scene: Scene, daemon: Program
) -> None:
    scene.rack.fail("nvmlDeviceResetGpuLockedClocks", 0, delay_s=1.0, times=1)
    for _ in range(2):
        daemon.process.send_signal(signal.SIGTERM)
        await_true(lambda: "shutting down" in daemon.text, LONG_S)
    assert daemon.process.wait(LONG_S) in (0, 128 + signal.SIGTERM)
    assert await_true(lambda: is_default(scene, 0), LONG_S)


def test_a_keeper_that_was_killed_and_comes_back_sets_the_clock_again(
    scene: Scene, keeper: Program, daemon: Program
) -> None:
    assert locked(scene)
    keeper.kill()
    assert await_true(lambda: control_is(scene, "refused"), LONG_S)
    assert answers(scene)
    again = start_keeper(scene)
    await_keeper(scene, again)
    assert await_true(lambda: control_is(scene, "on") and locked(scene), LONG_S)
    daemon.end()
    assert is_default(scene, 0)
    assert again.end() == 0


def test_without_a_keeper_it_serves_on_and_says_so_once(scene: Scene, start: Start) -> None:
    daemon = start()
    assert answers(scene)
    assert control_is(scene, "unavailable")
    (said,) = lines(daemon, "no keeper at")
    assert "WARNING gpu: " in said
    assert "the batch size alone is governed" in said
    assert daemon.end() == 0
    assert scene.rack.set_history() == ()


def test_a_card_that_may_not_be_set_is_said_once_and_served_on(
    scene: Scene, keeper: Program, start: Start
) -> None:
    scene.rack.fail("nvmlDeviceSetGpuLockedClocks", NO_PERMISSION)
    daemon = start()
    assert answers(scene)
    tries = scene.rack.calls("nvmlDeviceSetGpuLockedClocks")
    assert await_true(lambda: scene.rack.calls("nvmlDeviceSetGpuLockedClocks") > tries + 3, LONG_S)
    assert control_is(scene, "refused")
    assert len(lines(daemon, "NO_PERMISSION")) == 1
    scene.rack.clear_failures()
    assert await_true(lambda: control_is(scene, "on") and locked(scene), LONG_S)
    assert daemon.end() == 0
    assert is_default(scene, 0)


def test_a_gpu_that_is_lost_is_given_up_and_said_once(scene: Scene, daemon: Program) -> None:
    scene.rack.lose(0)
    assert await_true(lambda: control_is(scene, "lost"), LONG_S)
    assert answers(scene)
    assert 'code="GPU_IS_LOST"' in metrics(scene)
    asked = scene.rack.calls("nvmlDeviceGetClockInfo")
    assert len(lines(daemon, "GPU_IS_LOST")) == 1
    scene.rack.recover(0)
    assert await_true(lambda: is_default(scene, 0), LONG_S), "it stays not set while nobody looks after it"
    assert daemon.end() == 0
    assert is_default(scene, 0)
    assert asked > 0


@pytest.mark.usefixtures("started")
def test_without_nvml_it_does_not_start_and_says_why() -> None:
    with make_scene() as scene:
        scene.rack.library.unlink()
        daemon = start_daemon(scene, 0, NAME)
        assert daemon.process.wait(LONG_S) != 0
        assert "Traceback" not in daemon.text
        assert "LIBRARY_NOT_FOUND" in daemon.text


def test_a_driver_that_hangs_while_clocks_are_looked_for_does_not_hold_up_serving(
    scene: Scene, start: Start
) -> None:
    scene.rack.slow("nvmlDeviceGetMigMode", LONG_S)
    daemon = start()
    assert answers(scene)
    assert control_is(scene, "unavailable")
    assert len(lines(daemon, "which clocks may be set: its clock is left alone until it does")) == 1
    assert scene.rack.set_history() == ()
