"""Killing the daemon: each time the card must be back at its default within two seconds of the death."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

from bench.control.moments import LOCK, SLOW_SET_S, Moment, Waiting, choose, lingers, slow_sets
from bench.control.programs import start_daemon
from bench.control.scene import Scene
from bench.control.truth import await_default, is_default

LIMIT_S = 2.0
_GIVE_UP_S = 60.0


@dataclass(frozen=True, slots=True)
class Kill:
    """One daemon that was killed.

    `changed`: its card was not at its default then. `in_set`: a set was under way. `restored_s`: from the
    death to the card's default, None when that took longer than the limit; `late_s` is what it took then.
    """

    moment: Moment
    changed: bool
    in_set: bool
    restored_s: float | None
    late_s: float | None = None

    @property
    def kept(self) -> bool:
        """Whether the card was given back in time."""
        return self.restored_s is not None


def kill_daemons(scene: Scene, kills: int, seed: int, note: Callable[[Kill], None]) -> list[Kill]:
    """Start and kill daemons, one at a time on each card, all cards at once, under one keeper.

    `note` hears of every kill, one at a time.
    """
    turns, lock = itertools.count(), Lock()

    def work(card: int) -> list[Kill]:
        done = []
        waiting = random.Random(f"{seed}-{card}")
        slow_sets(scene, card)
        while next(turns) < kills:
            done.append(_kill_one(scene, card, waiting))
            with lock:
                note(done[-1])
        return done

    cards = range(len(scene.rack))
    with ThreadPoolExecutor(len(cards)) as pool:
        return [kill for done in pool.map(work, cards) for kill in done]


def _kill_one(scene: Scene, card: int, generator: random.Random) -> Kill:
    moment, name = choose(generator), f"daemon{card}"
    daemon = start_daemon(scene, card, name)
    try:
        Waiting(scene, card, generator).wait(moment, daemon, name)
    finally:
        daemon.process.kill()
    kill_s = time.monotonic()
    changed = not is_default(scene, card)
    death_s = daemon.kill()
    restored_s = await_default(scene, card, death_s, LIMIT_S)
    late_s = None if restored_s is not None else await_default(scene, card, death_s, _GIVE_UP_S)
    return Kill(moment, changed, _in_set(scene, card, kill_s), restored_s, late_s)


def _in_set(scene: Scene, card: int, at_s: float) -> bool:
    """Whether a set was under way; its call is logged when it has its effect."""
    after_s = SLOW_SET_S if lingers(card) else 0.0
    sets = (call for call in scene.rack.set_history(card) if call.function == LOCK)
    return any(call.at_s + after_s - SLOW_SET_S <= at_s <= call.at_s + after_s for call in sets)
