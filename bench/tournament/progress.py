"""A progress bar on stderr while a tournament is played; a line now and then where stderr is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 60.0


class TournamentProgress:
    """Counts what is done. A context manager.

    Args:
        total: how many results there will be.
        done: how many there were before.
        console: where to draw; None: stderr.
    """

    def __init__(self, total: int, done: int = 0, console: Console | None = None) -> None:
        self._console = console or Console(file=sys.stderr)
        self._bar = Progress(
            TextColumn("simulating"),
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

    def __enter__(self) -> TournamentProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def finished(self, name: str, count: int = 1) -> None:
        """Count a result, and those that it makes impossible, and show what it was."""
        self._done += count
        self._bar.update(self._task, advance=count, description=name)
        if not self._console.is_terminal and time.monotonic() - self._said_s >= LINE_EVERY_S:
            self._said_s = time.monotonic()
            self._console.print(f"{self._done} of {self._total} simulated, last {name}", highlight=False)
