"""Bars on stderr: one that is gone at the end, and one that counts and tells lines without a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)


def passing_bar(
    clock: ProgressColumn, console: Console | None = None, *, auto_refresh: bool = True
) -> Progress:
    """Return a bar that is gone once it is done, with a field `counts`; nothing is drawn without a terminal.

    It is drawn while its block runs.

    Args:
        clock: the last column.
        console: where to draw; None: stderr.
        auto_refresh: whether a thread draws it; without, each `update` says so itself.
    """
    console = console or Console(file=sys.stderr)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[counts]}"),
        clock,
        console=console,
        disable=not console.is_terminal,
        transient=True,
        auto_refresh=auto_refresh,
    )


class CountingBar:
    """Counts. A context manager.

    Args:
        doing: what is done, before the bar, e.g. `measuring`.
        told: between the count and what is under way in a line, e.g. `measured, now`.
        every_s: where stderr is no terminal, a line at most so often.
        total: how much there is to do.
        done: how much of that was done before.
        console: where to draw; None: stderr.
    """

    def __init__(
        self,
        doing: str,
        told: str,
        every_s: float,
        total: int = 0,
        done: int = 0,
        console: Console | None = None,
    ) -> None:
        self._console = console or Console(file=sys.stderr)
        self._told, self._every_s = told, every_s
        self._bar = Progress(
            TextColumn(doing),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID = self._bar.add_task("", total=total, completed=done)
        self._total, self._done = total, done
        self._said_s = time.monotonic()

    def __enter__(self) -> CountingBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def expect(self, count: int) -> None:
        """Add to what there is to do; negative for what will not be done."""
        self._total += count
        self._bar.update(self._task, total=self._total)

    def doing(self, text: str) -> None:
        """Show what is under way, or was last."""
        self._bar.update(self._task, description=text)
        if not self._console.is_terminal and time.monotonic() - self._said_s >= self._every_s:
            self._said_s = time.monotonic()
            self.say(f"{self._done} of {self._total} {self._told} {text}")

    def done(self, count: int = 1) -> None:
        """Count."""
        self._done += count
        self._bar.update(self._task, advance=count)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
