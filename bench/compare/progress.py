"""A progress bar on stderr while engines are compared; plain lines where stderr is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 20.0


class CompareProgress:
    """Counts measurements. A context manager.

    Args:
        console: where to draw; None: stderr.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(file=sys.stderr)
        self._bar = Progress(
            TextColumn("measuring"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID = self._bar.add_task("", total=0)
        self._total = self._done = 0
        self._said_s = 0.0

    def __enter__(self) -> CompareProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def expect(self, count: int) -> None:
        """Add measurements to come; negative for those that will not."""
        self._total += count
        self._bar.update(self._task, total=self._total)

    def doing(self, text: str) -> None:
        """Show what is under way."""
        self._bar.update(self._task, description=text)
        if not self._console.is_terminal and time.monotonic() - self._said_s >= LINE_EVERY_S:
            self._said_s = time.monotonic()
            self.say(f"{self._done} of {self._total} measured, now {text}")

    def done(self) -> None:
        """Count a measurement."""
        self._done += 1
        self._bar.update(self._task, advance=1)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
