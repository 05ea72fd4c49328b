"""How far a build has come: TensorRT's tree of phases as one share."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OnProgress = Callable[[float, str], bool]
"""Called with the share done, 0 to 1 and never falling, and the phase; False ends the build."""


_LOG = logging.getLogger(__name__)
_LOG_EVERY_S = 5.0


def logged_progress(what: str, clock: Callable[[], float] = time.monotonic) -> OnProgress:
    """Tell the log every few seconds how far a build is; short builds are not worth a line."""
    told_s = clock()

    def on_progress(share: float, phase: str) -> bool:
        nonlocal told_s
        if clock() - told_s >= _LOG_EVERY_S:
            told_s = clock()
            _LOG.info("building %s: %.0f %% (%s)", what, 100 * share, phase)
        return True

    return on_progress


@dataclass(slots=True)
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class PhaseTree:
    """Phases within phases, each of some steps; a phase fills the step that its parent is in."""

    def __init__(self) -> None:
        self._phases: dict[str, _Phase] = {}
        self._share = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins, inside another or as a new root."""
        self._phases[name] = _Phase(parent, max(1, steps))

    def step(self, name: str, number: int) -> None:
        """A phase has finished its step `number`, counted from 0."""
        if name in self._phases:
            self._phases[name].done = number + 1

    def finish(self, name: str) -> None:
        """A phase ends."""
        phase = self._phases.pop(name, None)
        if phase is not None and phase.parent is None:
            self._share = 1.0

    def share(self) -> float:
        """What is done, 0 to 1; never falls, though phases may come unannounced."""
        roots = [name for name, phase in self._phases.items() if phase.parent is None]
        self._share = max([self._share, *(self._within(root) for root in roots)])
        return self._share

    def _within(self, name: str) -> float:
        phase = self._phases[name]
        inner = [self._within(other) for other, below in self._phases.items() if below.parent == name]
        return min(1.0, (phase.done + min(0.99, sum(inner))) / phase.steps)


def make_monitor(trt: Any, on_progress: OnProgress) -> Any | None:  # noqa: ANN401
    """Return what TensorRT reports to; None where this TensorRT reports nothing."""
    if not hasattr(trt, "IProgressMonitor"):
        return None
    tree = PhaseTree()

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # TensorRT calls a subclass; the base has no types
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            tree.start(name, parent, steps)

        def step_complete(self, name: str, number: int) -> bool:
            tree.step(name, number)
            return on_progress(tree.share(), name)

        def phase_finish(self, name: str) -> None:
            tree.finish(name)

    return Monitor()
