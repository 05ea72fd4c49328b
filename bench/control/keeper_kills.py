"""Killing the keeper: each time every card must be given back within two seconds of the keeper's restart.

The daemons live on, hold their cards' clocks, and take them anew as soon as the keeper lets them. So a card
may be at its default for a moment only: what counts is the reset that the new keeper made, by the rack's log.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread

import grpc

from bench.control.moments import pin_random_clock, slow_sets
from bench.control.programs import Ports, Program, await_daemon, await_keeper, start_daemon, start_keeper
from bench.control.scene import Scene
from bench.control.truth import await_true, is_default

LIMIT_S = 2.0
LONGEST_LIFE_S = 1.5
LONGEST_PAUSE_S = 0.5
_BACK_LIMIT_S = 20.0
_RESETS = ("nvmlDeviceResetGpuLockedClocks", "nvmlDeviceResetApplicationsClocks")
_OK = 0


@dataclass(frozen=True, slots=True)
class KeeperKill:
    """One keeper that was killed and started again.

    `changed`: how many cards were not at their default when it died. `restored_s`: from the start of the new
    process to the reset of the last of them; None when that took longer than the limit. `back_s`: until all
    daemons had a clock set again; None when they had not within 20 s.
    """

    changed: int
    restored_s: float | None
    back_s: float | None

    @property
    def kept(self) -> bool:
        """Whether all cards were given back in time."""
        return self.restored_s is not None


def kill_keepers(
    scene: Scene, keeper: Program, kills: int, seed: int, note: Callable[[KeeperKill], None]
) -> tuple[Program, list[KeeperKill]]:
    """Kill and restart the keeper under the hands of daemons that move their clocks all the time.

    Returns the keeper that runs at the end, and what happened.
    """
    generator = random.Random(seed)
    done: list[KeeperKill] = []
    with _restless_daemons(scene, seed):
        for _ in range(kills):
            time.sleep(generator.uniform(0.0, LONGEST_LIFE_S))
            keeper, kill = _kill_one(scene, keeper, generator)
            done.append(kill)
            note(kill)
    return keeper, done


def _kill_one(scene: Scene, keeper: Program, generator: random.Random) -> tuple[Program, KeeperKill]:
    keeper.kill()
    changed = [card for card in range(len(scene.rack)) if not is_default(scene, card)]
    time.sleep(generator.uniform(0.0, LONGEST_PAUSE_S))
    keeper = start_keeper(scene)
    await_keeper(scene, keeper)
    await_true(lambda: len(_reset_s(scene, keeper, changed)) == len(changed), LIMIT_S)
    resets_s = _reset_s(scene, keeper, changed)
    latest_s = max(resets_s, default=keeper.started_s) - keeper.started_s
    in_time = len(resets_s) == len(changed) and latest_s <= LIMIT_S
    cards = range(len(scene.rack))
    back = await_true(lambda: not any(is_default(scene, card) for card in cards), _BACK_LIMIT_S)
    back_s = time.monotonic() - keeper.started_s if back else None
    return keeper, KeeperKill(len(changed), latest_s if in_time else None, back_s)


def _reset_s(scene: Scene, keeper: Program, cards: Sequence[int]) -> list[float]:
    """When this keeper first reset each of the cards, for those that it has."""
    calls = [call for call in scene.rack.set_history() if call.pid == keeper.pid and call.code == _OK]
    firsts = [
        min((call.at_s for call in calls if call.card == card and call.function in _RESETS), default=None)
        for card in cards
    ]
    return [at_s for at_s in firsts if at_s is not None]


@contextmanager
def _restless_daemons(scene: Scene, seed: int) -> Iterator[None]:
    """One daemon a card, whose operator pins another clock again and again."""
    daemons: list[Program] = []
    try:
        for card in range(len(scene.rack)):
            daemons.append(start_daemon(scene, card, f"restless{card}"))  # noqa: PERF401 - each, to be ended
        ports = [await_daemon(scene, daemon, f"restless{card}") for card, daemon in enumerate(daemons)]
        for card in range(len(scene.rack)):
            slow_sets(scene, card)
        with _pinning(ports, seed):
            yield
    finally:
        for daemon in daemons:
            daemon.end()


@contextmanager
def _pinning(ports: Sequence[Ports], seed: int) -> Iterator[None]:
    ended = Event()
    generator = random.Random(f"{seed}-pins")

    def work() -> None:
        while not ended.wait(0.2 / len(ports)):
            try:
                pin_random_clock(generator.choice(ports), generator)
            except grpc.RpcError:  # the next one will do
                continue

    thread = Thread(target=work, name="pins", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
