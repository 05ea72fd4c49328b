"""What the tournament keeps: the ground of each cell, and what each policy did on it. JSON both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.tournament.plan import Cell
from bench.tournament.score import Score
from optimizer.operating_point import OperatingPoint
from optimizer.targets import Targets

SIMULATED = "simulated"


@dataclass(frozen=True, slots=True)
class Fixed:
    """A setting that was kept for the whole run, and its score."""

    point: OperatingPoint
    score: Score


@dataclass(frozen=True, slots=True)
class FormAnswer:
    """What the best fixed setting brings over the default setting under one form of the objective.

    `default` and `best` are scores of that form, in its unit; higher is better in every form. `gain` is their
    difference over the amount of the default's; None where the default setting misses the SLO, so that
    penalties would drown the comparison.
    """

    point: OperatingPoint
    default: float
    best: float
    gain: float | None


@dataclass(frozen=True, slots=True)
class Ground:
    """A cell before anybody plays: its demands, its price, and the fixed settings to compare with.

    Args:
        cell: which.
        fingerprint: of everything that these figures depend on but the code.
        code: of the code that made them.
        slo_ms: the SLO.
        capacity: images a second at the fast point.
        mean_rate: images a second that arrived on average.
        price_per_1000_images: set so that energy costs `energy_share` of the oracle's income.
        energy_share: what came out of it.
        default: the server without a governor.
        oracle: the best fixed setting in hindsight.
        fast: the fast point, kept.
        one_cap: the card's one static power cap, as `joule_point` has it.
        forms: the paper's question, in cells that are asked; by form.
    """

    cell: Cell
    fingerprint: str
    code: str
    slo_ms: float
    capacity: float
    mean_rate: float
    price_per_1000_images: float
    energy_share: float
    default: Fixed
    oracle: Fixed
    fast: Fixed
    one_cap: Fixed
    seconds: float
    forms: Mapping[str, FormAnswer] = field(default_factory=dict)

    @property
    def targets(self) -> Targets:
        """What the operator wants in this cell; other prices are the defaults of `Targets`."""
        price = self.price_per_1000_images
        return Targets(
            slo_p99_ms=self.slo_ms, price_per_1000_images=price, late_penalty_per_1000_images=price
        )

    @classmethod
    def read(cls, table: dict[str, Any]) -> Ground:
        """Make one of what `as_json` made of it. Raises KeyError or TypeError when something is missing."""
        fixed = {name: _fixed(table[name]) for name in ("default", "oracle", "fast", "one_cap")}
        forms = {
            name: FormAnswer(**{**answer, "point": OperatingPoint(**answer["point"])})
            for name, answer in table["forms"].items()
        }
        return cls(**{**table, **fixed, "forms": forms, "cell": Cell(**table["cell"])})


@dataclass(frozen=True, slots=True)
class Series:
    """A run, window by window: columns of one length.

    Limit, delay and clock are those last asked for in the window; `revenue` is what it earned, by the sensors
    that a governor has.
    """

    end_s: Sequence[float]
    batch_limit: Sequence[int]
    max_delay_ms: Sequence[float]
    sm_clock_mhz: Sequence[int | None]
    arrived: Sequence[int]
    late: Sequence[int]
    joules: Sequence[float]
    revenue: Sequence[float]


@dataclass(frozen=True, slots=True)
class Played:
    """What one policy did in one cell.

    Args:
        cell: where.
        policy: who.
        fingerprint: of everything that these figures depend on but the code.
        code: of the code that made them.
        score: the outcome.
        clock_changes: how often another clock was asked for.
        decide_us_p99: processor time of a decision on the simulating machine, busy with other cells too.
        settings_on_grid: how many settings it chose from.
        real_time_factor: simulated over elapsed time.
        seconds: elapsed.
        series: the run, window by window.
        warm: the first minute again on other arrivals, begun with what was learned; None where not tried.
    """

    cell: Cell
    policy: str
    fingerprint: str
    code: str
    score: Score
    clock_changes: int
    decide_us_p99: float
    settings_on_grid: int
    real_time_factor: float
    seconds: float
    series: Series
    warm: Series | None = None

    @classmethod
    def read(cls, table: dict[str, Any]) -> Played:
        """Make one of what `as_json` made of it. Raises KeyError or TypeError when something is missing."""
        parts = {
            "cell": Cell(**table["cell"]),
            "score": Score.read(table["score"]),
            "series": Series(**table["series"]),
            "warm": None if table["warm"] is None else Series(**table["warm"]),
        }
        return cls(**{**table, **parts})


@dataclass(frozen=True, slots=True)
class Failure:
    """A cell, or a policy in it, that could not be simulated. `policy` is empty for the cell itself."""

    cell: Cell
    policy: str
    error: str


def as_json(result: Ground | Played) -> dict[str, Any]:
    """Return what the result's `read` takes, and that it is simulated."""
    return asdict(result)


def _fixed(table: dict[str, Any]) -> Fixed:
    return Fixed(OperatingPoint(**table["point"]), Score.read(table["score"]))
