"""The lease of one GPU: who holds it, until when, and whether it is still to be given back."""

from __future__ import annotations

import math
from dataclasses import dataclass

RESTORE_AGAIN_S = 1.0


@dataclass(slots=True)
class Lease:
    """One GPU's lease. Times are seconds of a monotonic clock, as given by the caller.

    A lease is *free*, *held*, or *ended*: ended, the GPU has to be restored before anybody else may hold it.
    While the GPU is being set for its holder the lease does not run: the keeper's own slowness counts against
    nobody, and the time begins anew when it has finished.

    Args:
        length_s: how long a lease runs when nobody renews it.
    """

    length_s: float
    holder: int | None = None
    restoring: bool = False
    _ends_s: float = math.inf
    _restore_at_s: float = math.inf

    @property
    def free(self) -> bool:
        """Whether it may be taken."""
        return self.holder is None and not self.restoring

    @property
    def next_s(self) -> float:
        """When to look at it again; infinite: not before something happens."""
        return min(self._ends_s, self._restore_at_s)

    def take(self, holder: int) -> None:
        """Give it to a holder; it runs from the next `run` on."""
        self.holder, self._ends_s = holder, math.inf

    def run(self, now_s: float) -> None:
        """Let it run anew: it was renewed, or what the holder asked for has been done."""
        self._ends_s = now_s + self.length_s

    def pause(self) -> None:
        """Let it not run out while the GPU is being set."""
        self._ends_s = math.inf

    def expired(self, now_s: float) -> bool:
        """Whether it was held and has run out."""
        return self.holder is not None and now_s >= self._ends_s

    def end(self) -> None:
        """Take it from its holder. The GPU is to be restored at once, and the caller sees to that."""
        self.holder, self._ends_s = None, math.inf
        self.restoring, self._restore_at_s = True, math.inf

    def restored(self) -> None:
        """The GPU is as it was."""
        self.restoring = False

    def not_restored(self, now_s: float) -> None:
        """Restoring failed: it is due again in a second."""
        self._restore_at_s = now_s + RESTORE_AGAIN_S

    def restore_due(self, now_s: float) -> bool:
        """Whether to try restoring again; true once for each failure."""
        due = now_s >= self._restore_at_s
        if due:
            self._restore_at_s = math.inf
        return due
