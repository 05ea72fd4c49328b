"""What the later half of each interval earns, when a clock asked for as it began has come.

A clock is on its way for up to a quarter of a second, so that the first interval after a decision is a part
of what was before. By its later half the decision is in force.
"""

from __future__ import annotations

from collections.abc import Callable

from optimizer.devices.simulated import SimulatedGpu
from optimizer.revenue import Outcome, score
from optimizer.targets import Targets
from optimizer.twin.simulation import SimulatedServer

LOOKS = 2
"""An interval is looked at in its middle and at its end."""


class LaterHalves:
    """Looks at a simulated server in the middle and at the end of each interval, exactly, as no sensor could.

    Args:
        server: answers.
        gpu: uses energy.
        targets: what both are worth; with a plain energy price.
        half_s: half an interval.
        turn: called at the end of each interval.

    Attributes:
        revenue: of each later half, a second.
    """

    def __init__(
        self,
        server: SimulatedServer,
        gpu: SimulatedGpu,
        targets: Targets,
        half_s: float,
        turn: Callable[[], object],
    ) -> None:
        self._server, self._gpu, self._targets, self._half_s = server, gpu, targets, half_s
        self._turn = turn
        self._answered, self._used_j = 0, 0.0
        self._in_the_middle = False
        self.revenue: list[float] = []

    def look(self) -> None:
        """Look, and have the turn taken at the end of an interval."""
        self._in_the_middle = not self._in_the_middle
        if not self._in_the_middle:
            self.revenue.append(self._earned() / self._half_s)
            self._turn()
        self._answered, self._used_j = self._server.answered, self._gpu.used_j()

    def _earned(self) -> float:
        latencies_ms = self._server.latencies_ms_from(self._answered)
        in_time = float((latencies_ms <= self._targets.slo_p99_ms).sum())
        outcome = Outcome(
            self._half_s,
            in_time,
            latencies_ms.size - in_time,
            self._gpu.used_j() - self._used_j,
            float(latencies_ms.mean()) if latencies_ms.size else 0.0,
        )
        return float(score(self._targets, outcome).total)
