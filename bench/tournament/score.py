"""How one setting or policy did in one cell: what is kept of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.simulate.account import Account
from bench.simulate.run import Run
from optimizer.revenue import profit
from optimizer.targets import Targets

LATE_SHARE_ALLOWED = 0.01


@dataclass(frozen=True, slots=True)
class Score:
    """Simulated results of one run. Money in the currency of the targets, energy in joules, times in ms.

    `revenue = income - penalty - energy_cost`. Every image that was not answered within the SLO is late.
    A latency is None when nothing completed.
    """

    revenue: float
    income: float
    penalty: float
    energy_cost: float
    images_arrived: int
    images_completed: int
    images_late: int
    energy_j: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None

    @property
    def images_in_time(self) -> int:
        """Images answered within the SLO."""
        return self.images_arrived - self.images_late

    @property
    def late_share(self) -> float:
        """Late images over all that arrived; 0 when none did."""
        return self.images_late / self.images_arrived if self.images_arrived else 0.0

    @property
    def in_time(self) -> bool:
        """Whether at most one image in a hundred was late, as a p99 SLO asks."""
        return self.late_share <= LATE_SHARE_ALLOWED

    @property
    def joules_per_image(self) -> float | None:
        """Energy, idle included, over images completed; None when none did."""
        return self.energy_j / self.images_completed if self.images_completed else None

    @classmethod
    def of(cls, run: Run | Account, images_arrived: int, targets: Targets) -> Score:
        """Keep what matters of a run, and split its revenue by the profit of the targets."""
        in_time = float(images_arrived - run.images_late)
        books = profit(targets, in_time, float(run.images_late), run.energy_j)
        return cls(
            revenue=books.total,
            income=books.income,
            penalty=books.penalty,
            energy_cost=books.energy_cost or 0.0,
            images_arrived=images_arrived,
            images_completed=run.images_completed,
            images_late=run.images_late,
            energy_j=run.energy_j,
            p50_ms=run.latency_ms["p50"],
            p95_ms=run.latency_ms["p95"],
            p99_ms=run.latency_ms["p99"],
        )

    @classmethod
    def read(cls, table: dict[str, Any]) -> Score:
        """Make one of what `dataclasses.asdict` made of it. Raises TypeError when a field is missing."""
        return cls(**table)
