"""The control of the stand-in: makes racks of cards, scripts their failures, sees what is true of them."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from bench.standin import layout
from bench.standin.build import LIBRARY
from bench.standin.cards import CardSpec
from bench.standin.library import RackError
from bench.standin.shared import SharedState
from bench.standin.truth import CardTruth, SetCall, read_truth
from bench.standin.writing import write_card

ENVIRONMENT = "BOULTON_STANDIN_NVML"
DRIVER_VERSION = "580.0-standin"
EVERY_FUNCTION = "*"
When = Literal["before", "after", "holding"]

_ANY_CARD = -1
_FOR_EVER = -1
_EVERY_FUNCTION = 0xFFFFFFFF
_WHEN: Mapping[When, int] = {"before": 0, "after": 1, "holding": 2}


class Rack:
    """Several cards in one file that all processes share; use it as a context manager, or close it.

    Made by `create` or `open`. Cards are named by their index, as NVML counts them.
    """

    def __init__(self, path: Path, library_directory: Path, shared: SharedState) -> None:
        self.path = path
        self.library_directory = library_directory
        self._shared = shared

    @classmethod
    def create(
        cls,
        path: Path,
        cards: Sequence[CardSpec],
        library_directory: Path,
        driver_version: str = DRIVER_VERSION,
    ) -> Self:
        """Make a rack in a file that does not exist yet.

        Args:
            path: the file; on a local file system.
            cards: 1 to 16 cards.
            library_directory: where `build` has put the library.
            driver_version: what NVML says of the driver.

        Raises:
            RackError: the file exists or cannot be made, or the number of cards is wrong.
        """
        if not 1 <= len(cards) <= layout.MAX_CARDS:
            raise RackError(f"a rack holds 1 to {layout.MAX_CARDS} cards, got {len(cards)}")
        shared = SharedState.create(path, library_directory)
        _fill(shared, cards, driver_version)
        return cls(path, library_directory, shared)

    @classmethod
    def open(cls, path: Path, library_directory: Path) -> Self:
        """Open a rack that another process has made.

        Raises:
            RackError: there is none, or one made by another version of the library.
        """
        return cls(path, library_directory, SharedState.open(path, library_directory))

    def close(self) -> None:
        """Let go of the file; the file and what is in it stay."""
        self._shared.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def library(self) -> Path:
        """The library file, for `ctypes.CDLL`."""
        return self.library_directory / LIBRARY

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment, from its start on, to see these cards through NVML."""
        others = os.environ.get("LD_LIBRARY_PATH")
        directories = [str(self.library_directory), *([others] if others else [])]
        return {"LD_LIBRARY_PATH": ":".join(directories), ENVIRONMENT: str(self.path)}

    def __len__(self) -> int:
        return self._shared.state.count

    def uuid(self, card: int) -> str:
        """The card's UUID."""
        with self._shared.card(card) as shared:
            return shared.make.uuid.decode()

    # What is true.

    def card(self, card: int = 0) -> CardTruth:
        """Return what is true of a card now."""
        with self._shared.card(card) as shared:
            state = layout.State()
            self._shared.library.standinState(ctypes.byref(shared), ctypes.byref(state))
            return read_truth(shared, state)

    def calls(self, function: str) -> int:
        """Return how often a function has been begun, by any process, with or without success.

        A setter that is still at work counts: so a test knows when to kill its caller. Waits for no lock.
        """
        return int(self._shared.state.calls[self._number(function)])

    def set_history(self, card: int | None = None) -> tuple[SetCall, ...]:
        """Return the calls of setters that came to an end, oldest first; the latest 8192 are kept."""
        with self._shared.locked() as state:
            total, log = state.logged, bytes(state.log)  # decoded later: nobody waits for that
        entries = (layout.LogEntry * layout.MAX_LOG).from_buffer_copy(log)
        latest = (entries[place % layout.MAX_LOG] for place in range(max(0, total - layout.MAX_LOG), total))
        return tuple(self._set_call(entry) for entry in latest if card is None or entry.card == card)

    # What is scripted.

    def fail(
        self,
        function: str,
        code: int,
        *,
        times: int | None = None,
        after_s: float = 0.0,
        card: int | None = None,
        delay_s: float = 0.0,
        when: When = "before",
    ) -> None:
        """Script a function: whenever several scripts apply to a call, the one made first does.

        Args:
            function: NVML's name, with or without its version; `field:185`, `field:186` or `field:83` for one
                value of nvmlDeviceGetFieldValues; `*` for every NVML function.
            code: what it returns; 0 to let it succeed (for a slow call).
            times: how many calls; None for all.
            after_s: from when on, in seconds from now.
            card: only calls about this card. Calls about none, such as nvmlInit, then go on as ever.
            delay_s: how long it takes.
            when: `before`: wait, then return the code without any effect, or go on where the code is 0;
                `after`: have the effect, then wait and return the code;
                `holding`: as `before`, but hold the lock of the whole rack meanwhile.

        Raises:
            ValueError: no such function.
            RackError: too many scripts at once.
        """
        number = _EVERY_FUNCTION if function == EVERY_FUNCTION else self._number(function)
        with self._shared.locked() as state:
            rule = _new_rule(state)
            rule.function, rule.code, rule.when = number, code, _WHEN[when]
            rule.card = _ANY_CARD if card is None else card
            rule.remaining = _FOR_EVER if times is None else times
            rule.from_ns = self._shared.now_ns() + round(after_s * 1e9)
            rule.delay_ns = round(delay_s * 1e9)
            rule.active = 1

    def slow(self, function: str, seconds: float, *, when: When = "before", times: int | None = None) -> None:
        """Script a function to succeed, but to take so long, before or after its effect."""
        self.fail(function, 0, delay_s=seconds, when=when, times=times)

    def clear_failures(self) -> None:
        """Forget all scripts. Calls that are waiting wait on."""
        with self._shared.locked() as state:
            for rule in state.rules:
                rule.active = 0

    def lose(self, card: int = 0) -> None:
        """Let a card fall off the bus: every call about it returns GPU_IS_LOST."""
        with self._shared.card(card) as shared:
            shared.script.lost = 1

    def recover(self, card: int = 0) -> None:
        """Bring a lost card back as it was."""
        with self._shared.card(card) as shared:
            shared.script.lost = 0

    def set_mig(self, card: int, enabled: bool) -> None:
        """Switch MIG mode."""
        with self._shared.card(card) as shared:
            shared.script.mig = int(enabled)

    def set_reason(self, card: int, bits: int, clock_mhz: int | None = None) -> None:
        """Have a card give reasons (NVML's bits) beside its own, until called again with 0.

        A slowdown or power-brake bit slows the card to its `slowdown_mhz`. `clock_mhz` says otherwise, and
        limits the clock whatever the bits: with 0 bits, a limit that nothing explains.
        """
        with self._shared.card(card) as shared:
            shared.script.forced_reasons = bits
            shared.script.forced_clock_mhz = clock_mhz or 0

    def set_temperature(self, card: int, celsius: float | None) -> None:
        """Hold a card's temperature; None lets it follow its power again."""
        with self._shared.card(card) as shared:
            shared.script.temperature_fixed = int(celsius is not None)
            if celsius is not None:
                shared.motion.temperature_c = celsius

    def set_processes(self, card: int, pids: Sequence[int]) -> None:
        """Have a card list processes (at most 16) beside those that ran batches on it."""
        if len(pids) > layout.MAX_PROCESSES:
            raise ValueError(f"a card lists up to {layout.MAX_PROCESSES} processes, got {len(pids)}")
        with self._shared.card(card) as shared:
            shared.script.processes[: len(pids)] = list(pids)
            shared.script.process_count = len(pids)

    def set_power_limit(self, card: int, watts: float) -> None:
        """Set the power limit as an administrator had before Boulton came."""
        with self._shared.card(card) as shared:
            shared.settings.limit_mw = round(watts * 1000)

    def keep_busy(self, card: int, seconds: float, utilisation: float = 1.0) -> None:
        """Give a card work from this process, without NVML; returns at once."""
        with self._shared.card(card) as shared:
            if self._shared.library.standinBook(ctypes.byref(shared), seconds, utilisation) != 0:
                raise RackError(f"card {card} has work from {layout.MAX_BOOKINGS} processes already")

    def hold_lock(self) -> None:
        """Take the lock and keep it: for a test that kills its own process, or one that asks who waits."""
        self._shared.library.standinLock(self._shared.address)

    # Time.

    def stop_clock(self) -> None:
        """Let no time pass for cards and scripts, except by `skip`. Delays of slow calls stay real."""
        with self._shared.locked() as state:
            state.stopped_ns = self._shared.library.standinMonotonic()

    def skip(self, seconds: float) -> None:
        """Let time pass at once."""
        with self._shared.locked() as state:
            state.skipped_ns += round(seconds * 1e9)

    def _number(self, function: str) -> int:
        base = re.sub(r"(_v\d+|WithFlags)$", "", function)
        known = self._shared.functions
        if base not in known:
            raise ValueError(f"the stand-in has no function {function!r}; it has {', '.join(known)}")
        return known[base]

    def _set_call(self, entry: layout.LogEntry) -> SetCall:
        function = self._shared.library.standinFunction(entry.function).decode()
        arguments = (entry.first, entry.second)
        return SetCall(entry.at_ns * 1e-9, entry.pid, entry.uid, function, entry.card, arguments, entry.code)


def _fill(shared: SharedState, cards: Sequence[CardSpec], driver_version: str) -> None:
    state = shared.state
    state.driver_version = driver_version.encode()
    state.count = len(cards)
    for index, spec in enumerate(cards):
        write_card(spec, index, state.cards[index].make)
        shared.library.standinStart(ctypes.byref(state.cards[index]), shared.now_ns())
    shared.publish()


def _new_rule(state: layout.RackState) -> layout.Rule:
    """The place after the last script in force; those that ran out are dropped, the order stays."""
    live = [layout.Rule.from_buffer_copy(rule) for rule in state.rules if rule.active and rule.remaining]
    if len(live) == layout.MAX_RULES:
        raise RackError(f"{len(live)} scripts are in force, there is no room for more: clear_failures()")
    for place in range(layout.MAX_RULES):
        state.rules[place] = live[place] if place < len(live) else layout.Rule()
    new: layout.Rule = state.rules[len(live)]
    return new
