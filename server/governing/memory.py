"""What of a governor outlives the server: its targets, and what its policy learned, saved once a minute."""

from __future__ import annotations

import time
from dataclasses import dataclass

from optimizer.policies.policy import Learner
from server.governing.keeping import LearnedFile, TargetsFile

SAVE_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where targets and knowledge outlive the server."""

    targets: TargetsFile
    learned: LearnedFile


class Memory:
    """Keeps what a policy learns. One thread calls its methods.

    Args:
        learner: the policy; None: one that does not learn.
        keeping: where; None keeps nothing.
    """

    def __init__(self, learner: Learner | None, keeping: Keeping | None) -> None:
        self._learner = learner
        self._file = None if keeping is None else keeping.learned
        self._saved_s = time.monotonic()

    @property
    def path(self) -> str:
        """Where knowledge is kept; empty: nowhere."""
        return str(self._file.path) if self._file and self._learner else ""

    def recall(self) -> None:
        """Teach the policy what it knew before."""
        if self._file is not None and self._learner is not None:
            self._file.restore(self._learner)

    def save(self) -> None:
        """Keep what the policy knows."""
        self._saved_s = time.monotonic()
        if self._file is not None and self._learner is not None:
            self._file.save(self._learner)

    def save_now_and_then(self) -> None:
        """Keep it if that was long ago."""
        if time.monotonic() - self._saved_s >= SAVE_EVERY_S:
            self.save()

    def forget(self) -> None:
        """Have the policy start anew, and keep nothing of what it learned."""
        if self._learner is not None:
            self._learner.forget()
            if self._file is not None:
                self._file.remove()
