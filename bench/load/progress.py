"""A progress bar on stderr while a load runs; nothing where stderr is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class LoadProgress:
    """Shows how far a run is and how it goes. A context manager.

    Args:
        total_s: how long the run takes, warm-up included.
        console: where to draw; None: stderr.
    """

    def __init__(self, total_s: float, console: Console | None = None) -> None:
        console = console or Console(file=sys.stderr)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[counts]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
            auto_refresh=False,  # no thread that competes with the generator
        )
        self._total_s = total_s
        self._task: TaskID | None = None
        self._began_s = 0.0

    def __enter__(self) -> LoadProgress:
        self._bar.start()
        self._task = self._bar.add_task("connecting", total=self._total_s, counts="")
        self._bar.refresh()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def started(self) -> None:
        """The first request is about to be sent."""
        self._began_s = time.monotonic()
        self._show(0.0, "sending", "")

    def tick(self, answered: int, failed: int) -> None:
        """Show how many requests were answered and failed so far."""
        elapsed_s = time.monotonic() - self._began_s
        self._show(elapsed_s, "sending", f"{answered} answered, {failed} failed")

    def _show(self, elapsed_s: float, description: str, counts: str) -> None:
        assert self._task is not None, "used as a context manager"  # noqa: S101
        done_s = min(elapsed_s, self._total_s)
        self._bar.update(self._task, completed=done_s, description=description, counts=counts, refresh=True)
