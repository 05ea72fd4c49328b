"""Progress bars on stderr while a simulation runs; nothing where stderr is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, TaskID, TimeElapsedColumn

from bench.progress import passing_bar


@contextmanager
def simulation_progress(end_s: float, console: Console | None = None) -> Iterator[SimulationProgress]:
    """Show how far a simulation of so many seconds is, on `console` (None: stderr), while the block runs."""
    with passing_bar(TimeElapsedColumn(), console) as bar:
        yield SimulationProgress(end_s, bar)


class SimulationProgress:
    """Shows how far the rehearsal is, and how many settings the search in hindsight has tried.

    Args:
        end_s: how much time is simulated.
        bar: is being drawn.
    """

    def __init__(self, end_s: float, bar: Progress) -> None:
        self._end_s, self._bar = end_s, bar
        self._governing: TaskID | None = None
        self._searching: TaskID | None = None

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
