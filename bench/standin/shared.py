"""The state that all processes share, mapped into this one, with its lock."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from bench.standin import layout
from bench.standin.library import RackError, function_numbers, load


class SharedState:
    """One file of shared state; made by `create` or `open`, let go of by `close`."""

    def __init__(self, path: Path, library: ctypes.CDLL, address: int) -> None:
        self.library = library
        self.functions = function_numbers(library)
        self._path = path
        self._address = address

    @classmethod
    def create(cls, path: Path, library_directory: Path) -> Self:
        """Make the file, which nobody else can open before `publish`; raises RackError."""
        library = load(library_directory)
        address = library.standinCreate(os.fsencode(path))
        if not address:
            raise RackError(f"cannot make {path}: it exists already, or its directory cannot be written")
        return cls(path, library, address)

    @classmethod
    def open(cls, path: Path, library_directory: Path) -> Self:
        """Open a file that was published; raises RackError."""
        library = load(library_directory)
        address = library.standinOpen(os.fsencode(path))
        if not address:
            raise RackError(f"{path} is not a rack of this library: make it with Rack.create")
        return cls(path, library, address)

    def publish(self) -> None:
        """Let others open the file."""
        self.library.standinPublish(self.address)

    def close(self) -> None:
        """Let go of the file; the file and what is in it stay."""
        if self._address:
            self.library.standinClose(self._address)
            self._address = 0

    @property
    def address(self) -> int:
        """Where it is mapped; raises RackError when it was closed."""
        if not self._address:
            raise RackError(f"{self._path} was closed here: open it again with Rack.open")
        return self._address

    @property
    def state(self) -> layout.RackState:
        """The state as it is, whoever is changing it: for what never changes, or a single number."""
        return layout.RackState.from_address(self.address)

    @contextmanager
    def locked(self) -> Iterator[layout.RackState]:
        """The state while nobody else can change it."""
        state = self.state
        self.library.standinLock(self.address)
        try:
            yield state
        finally:
            self.library.standinUnlock(self.address)

    @contextmanager
    def card(self, card: int) -> Iterator[layout.Card]:
        """One card, having lived until now, while nobody else can change it; raises IndexError."""
        with self.locked() as state:
            if not 0 <= card < state.count:
                raise IndexError(f"no card {card}; the rack holds {state.count}")
            self.library.standinAdvance(ctypes.byref(state.cards[card]), self.now_ns())
            yield state.cards[card]

    def now_ns(self) -> int:
        """The time that the cards go by; the state is locked."""
        return int(self.library.standinNow(self.address))
