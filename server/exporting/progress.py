"""Showing that long work goes on: a spinner on a terminal, plain lines anywhere else. Always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.text import Text


class Progress(Protocol):
    """Where the steps of an export are told to."""

    def step(self, text: str) -> AbstractContextManager[None]:
        """Show `text` while the block runs, and how long it took when it has ended well."""


class ConsoleProgress:
    """Tells a person on stderr."""

    def __init__(self, console: Console | None = None) -> None:
        # Bound to stderr as it is now: exporters are silenced by replacing it, which must not silence this.
        self._console = console or Console(file=sys.stderr, highlight=False)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Show `text` while the block runs, and how long it took when it has ended well."""
        begin_s = time.monotonic()
        if self._console.is_terminal:
            with self._console.status(Text(text)):
                yield
        else:
            self._console.print(Text(f"{text} ..."), soft_wrap=True)
            yield
        took_s = time.monotonic() - begin_s
        self._console.print(Text(f"{text}: {took_s:.1f} s"), soft_wrap=True)
