"""When a daemon is killed: while it starts, while it governs, and in the middle of a set."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from enum import StrEnum

import grpc

from bench.control.programs import DECISION_INTERVAL_S, Ports, Program, await_daemon
from bench.control.scene import Scene
from bench.control.truth import await_true
from protos import boulton_pb2
from protos.boulton_pb2_grpc import OperatorServiceStub

SLOW_SET_S = 0.2
LONGEST_START_S = 1.5
LONGEST_LIFE_S = 1.0
_RPC_LIMIT_S = 10.0
_MARKER_LIMIT_S = 30.0
LOCK = "nvmlDeviceSetGpuLockedClocks"


class Moment(StrEnum):
    """What the daemon does when it is killed."""

    STARTING = "while it starts"
    GOVERNING = "while it governs"
    FIRST_SET = "in the first set"
    LATER_SET = "in a later set"


WEIGHTS: Mapping[Moment, float] = {
    Moment.STARTING: 0.2,
    Moment.GOVERNING: 0.3,
    Moment.FIRST_SET: 0.25,
    Moment.LATER_SET: 0.25,
}


def choose(generator: random.Random) -> Moment:
    """Draw a moment."""
    return generator.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]


def slow_sets(scene: Scene, card: int) -> None:
    """Have every set of a card's clock take a while: before its effect on every other card, else after it."""
    scene.rack.fail(LOCK, 0, card=card, delay_s=SLOW_SET_S, when="after" if lingers(card) else "before")


def lingers(card: int) -> bool:
    """Whether a set of this card's clock takes its time after its effect, rather than before."""
    return card % 2 == 1


class Waiting:
    """Waits for the moments of one card's daemons.

    Args:
        scene: where they run.
        card: which they govern.
        generator: draws what is random.
    """

    def __init__(self, scene: Scene, card: int, generator: random.Random) -> None:
        self._scene = scene
        self._card = card
        self._random = generator
        self._waits: Mapping[Moment, Callable[[Program, str], None]] = {
            Moment.STARTING: self._start,
            Moment.GOVERNING: self._govern,
            Moment.FIRST_SET: self._first_set,
            Moment.LATER_SET: self._later_set,
        }

    def wait(self, moment: Moment, daemon: Program, name: str) -> None:
        """Return when the moment has come. Raises DidNotStart."""
        self._waits[moment](daemon, name)

    def _start(self, _daemon: Program, _name: str) -> None:
        time.sleep(self._random.uniform(0.0, LONGEST_START_S))

    def _govern(self, daemon: Program, name: str) -> None:
        ports = await_daemon(self._scene, daemon, name)
        if self._random.random() < 0.5:
            pin_random_clock(ports, self._random)
        time.sleep(self._random.uniform(0.0, LONGEST_LIFE_S))

    def _first_set(self, daemon: Program, _name: str) -> None:
        """A marker is written before the first change: from then on the set is under way."""
        await_true(lambda: self._marked() or not daemon.alive, _MARKER_LIMIT_S)
        time.sleep(self._random.uniform(0.0, SLOW_SET_S))

    def _later_set(self, daemon: Program, name: str) -> None:
        pin_random_clock(await_daemon(self._scene, daemon, name), self._random)
        time.sleep(self._random.uniform(0.0, 2 * DECISION_INTERVAL_S + SLOW_SET_S))

    def _marked(self) -> bool:
        return any(self._scene.markers.glob(f"*{self._scene.uuids[self._card]}*"))


def pin_random_clock(ports: Ports, generator: random.Random) -> None:
    """Have a random clock set: as an operator would, by gRPC. Raises grpc.RpcError."""
    with grpc.insecure_channel(f"127.0.0.1:{ports.operator}") as channel:
        operator = OperatorServiceStub(channel)
        status = operator.GetStatus(boulton_pb2.GetStatusRequest(), timeout=_RPC_LIMIT_S)
        clock_mhz = generator.choice(list(status.sm_clocks_mhz))
        point = boulton_pb2.OperatingPoint(batch_limit=status.batch_limits[-1], sm_clock_mhz=clock_mhz)
        operator.Pin(boulton_pb2.PinRequest(point=point), timeout=_RPC_LIMIT_S)
