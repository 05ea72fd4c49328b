"""Progress bars on stderr while a simulation runs; nothing where stderr is no terminal."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class SimulationProgress:
    """Shows how far the rehearsal is, and how many settings the search in hindsight has tried.

    A context manager.

    Args:
        end_s: how much time is simulated.
        console: where to draw; None: stderr.
    """

    def __init__(self, end_s: float, console: Console | None = None) -> None:
        console = console or Console(file=sys.stderr)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[counts]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._end_s = end_s
        self._governing: TaskID | None = None
        self._searching: TaskID | None = None

    def __enter__(self) -> SimulationProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def governed(self, now_s: float) -> None:
        """The rehearsal has come to a simulated time."""
        if self._governing is None:
            self._governing = self._bar.add_task("governing", total=self._end_s, counts="")
        counts = f"{now_s:.0f} of {self._end_s:.0f} s simulated"
        self._bar.update(self._governing, completed=now_s, counts=counts)

    def searched(self, settings: int) -> None:
        """The search in hindsight has tried so many settings; nobody knows how many it will be."""
        if self._searching is None:
            self._searching = self._bar.add_task("best fixed setting in hindsight", total=None, counts="")
        self._bar.update(self._searching, counts=f"{settings} settings tried")
