"""A progress bar on stderr while a load runs; nothing where stderr is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, TaskID, TimeRemainingColumn

from bench.progress import passing_bar


@contextmanager
def load_progress(total_s: float, console: Console | None = None) -> Iterator[LoadProgress]:
    """Show how far a run of so many seconds is, on `console` (None: stderr), while the block runs."""
    # no thread that competes with the generator
    with passing_bar(TimeRemainingColumn(), console, auto_refresh=False) as bar:
        task = bar.add_task("connecting", total=total_s, counts="")
        bar.refresh()
        yield LoadProgress(total_s, bar, task)


class LoadProgress:
    """Shows how far a run is and how it goes.

    Args:
        total_s: how long the run takes, warm-up included.
        bar: is being drawn, by whoever updates it.
        task: the run's line on it.
    """

    def __init__(self, total_s: float, bar: Progress, task: TaskID) -> None:
        self._total_s, self._bar, self._task = total_s, bar, task
        self._began_s = 0.0

    def started(self) -> None:
        """The first request is about to be sent."""
        self._began_s = time.monotonic()
        self._show(0.0, "sending", "")

    def tick(self, answered: int, failed: int) -> None:
        """Show how many requests were answered and failed so far."""
        elapsed_s = time.monotonic() - self._began_s
        self._show(elapsed_s, "sending", f"{answered} answered, {failed} failed")

    def _show(self, elapsed_s: float, description: str, counts: str) -> None:
        done_s = min(elapsed_s, self._total_s)
        self._bar.update(self._task, completed=done_s, description=description, counts=counts, refresh=True)
