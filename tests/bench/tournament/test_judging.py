from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from bench.tournament import judging
from bench.tournament.figures import Figure, quantile
from bench.tournament.plan import Cell
from bench.tournament.results import Fixed, Ground, Played, Series
from bench.tournament.score import Score
from bench.tournament.summary import summarise
from optimizer.operating_point import OperatingPoint

CELL = Cell("v100", "resnet50", "steady-low", "tight")
POINT = OperatingPoint(8, 1000)


def make_score(
    revenue: float = 6.0, income: float = 10.0, penalty: float = 0.0, late: int = 0, joules: float = 100.0
) -> Score:
    energy_cost = income - penalty - revenue
    return Score(revenue, income, penalty, energy_cost, 1000, 1000, late, joules, 1.0, 2.0, 3.0)


def make_ground(default: Score, oracle: Score, slo_ms: float = 10.0) -> Ground:
    fixed = [Fixed(POINT, score) for score in (default, oracle, oracle, oracle)]
    return Ground(CELL, "print", "code", slo_ms, 1000.0, 100.0, 1.0, 0.4, *fixed, seconds=1.0)


def make_series(revenue: Sequence[float], clocks: Sequence[int] | None = None) -> Series:
    count = len(revenue)
    times = [float(index + 1) for index in range(count)]
    same = [0] * count
    return Series(times, [8] * count, [0.0] * count, clocks or [1000] * count, same, same, same, revenue)


def make_played(policy: str, score: Score, series: Series, warm: Series | None = None) -> Played:
    return Played(CELL, policy, "print", "code", score, 2, 500.0, 14_080, 50.0, 1.0, series, warm)


def test_ratio_and_share_of_the_attainable() -> None:
    ground = make_ground(default=make_score(4.0), oracle=make_score(6.0))
    assert judging.revenue_ratio(ground, make_score(5.7)) == pytest.approx(0.95)
    assert judging.gain_share(ground, make_score(5.7)) == pytest.approx(0.85)
    assert judging.gain_share(ground, make_score(6.2)) == pytest.approx(1.1)


def test_nothing_is_said_where_there_is_next_to_nothing_to_gain_or_to_earn() -> None:
    close = make_ground(default=make_score(5.9), oracle=make_score(6.0))
    assert judging.gain_share(close, make_score(5.95)) is None
    hopeless = make_ground(default=make_score(-4.0), oracle=make_score(-1.0))
    assert judging.revenue_ratio(hopeless, make_score(-2.0)) is None


def test_energy_saving_is_per_image() -> None:
    assert judging.energy_saving(make_score(joules=65.0), make_score(joules=100.0)) == pytest.approx(0.35)
    empty = Score(0.0, 0.0, 0.0, 0.0, 0, 0, 0, 5.0, None, None, None)
    assert judging.energy_saving(empty, make_score()) is None
    assert judging.energy_saving(make_score(), empty) is None


def test_slack_is_half_the_slo_left_and_nobody_late() -> None:
    assert judging.has_slack(make_ground(make_score(), make_score(), slo_ms=6.0))
    assert not judging.has_slack(make_ground(make_score(), make_score(), slo_ms=5.9))
    assert not judging.has_slack(make_ground(make_score(late=11), make_score(), slo_ms=6.0))


def test_decisions_until_the_final_rate() -> None:
    assert judging.decisions_until_final(make_series([10.0] * 60)) == 0
    # A mean over ten windows reaches 95 of 100 when it holds nine and a half of the good ones.
    assert judging.decisions_until_final(make_series([0.0] * 12 + [100.0] * 48)) == 12
    assert judging.decisions_until_final(make_series([50.0] * 12 + [100.0] * 48)) == 11
    assert judging.decisions_until_final(make_series([10.0] * 19)) is None
    assert judging.decisions_until_final(make_series([-1.0] * 60)) is None


def test_a_lead_is_split_into_the_books_and_into_times() -> None:
    ours = make_played("boulton", make_score(5.0, income=9.0, penalty=1.0), make_series([1.0] * 60))
    rival = make_played("clipper", make_score(6.5, income=10.0, penalty=0.0), make_series([1.0] * 60))
    why = judging.why_beaten(ours, rival)
    assert why is not None
    assert (why.lead, why.income, why.late, why.energy) == pytest.approx((0.3, 0.2, 0.2, -0.1))
    assert why.income + why.late + why.energy == pytest.approx(why.lead)


@pytest.mark.parametrize(
    ("at", "kind"), [(3, "cold_start"), (30, "switching"), (31, "switching"), (40, "settled")]
)
def test_a_lead_is_placed_in_time(at: int, kind: str) -> None:
    clocks = [1000] * 30 + [800] * 30
    ours = make_played("boulton", make_score(5.0), make_series([1.0] * 60, clocks))
    better = [1.0] * 60
    better[at] += 0.5
    rival = make_played("clipper", make_score(5.5), make_series(better))
    why = judging.why_beaten(ours, rival)
    assert why is not None
    found = {name: getattr(why, name) for name in ("cold_start", "switching", "settled")}
    assert found == pytest.approx({"cold_start": 0.0, "switching": 0.0, "settled": 0.0} | {kind: 0.1})


def test_half_a_percent_is_no_defeat() -> None:
    ours = make_played("boulton", make_score(10.0, income=15.0), make_series([1.0] * 60))
    rival = make_played("clipper", make_score(10.04, income=15.0), make_series([1.0] * 60))
    assert judging.why_beaten(ours, rival) is None


@pytest.mark.parametrize(
    ("figure", "reached"),
    [
        (Figure("", 0.95, 0.95), True),
        (Figure("", 0.94, 0.95), False),
        (Figure("", 1.0, 1.0, strict=True), False),
        (Figure("", 1.01, 1.0, strict=True), True),
        (Figure("", 0.01, 0.01, least=False), True),
        (Figure("", 0.02, 0.01, least=False), False),
        (Figure("", None, 0.01), None),
        (Figure("", 0.5), None),
    ],
)
def test_a_figure_reaches_its_target_or_not(figure: Figure, reached: bool | None) -> None:
    assert figure.reached is reached


def test_quantiles_do_not_interpolate() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([float(value) for value in range(1, 101)], 0.95) == 95.0
    assert quantile([], 0.95) is None


def test_the_summary_counts_names_and_judges() -> None:
    """Three cells: one as wanted, one far off, one with nothing to gain."""
    grounds, runs = [], []
    for traffic, default, earned in (
        ("steady-low", 4.0, 6.0),
        ("bursty", 4.0, 5.0),
        ("steady-high", 5.99, 6.0),
    ):
        cell = Cell("v100", "resnet50", traffic, "tight")
        grounds.append(replace(make_ground(make_score(default), make_score(6.0)), cell=cell))
        for policy, revenue in (("boulton", earned), ("clipper", 5.5)):
            played = make_played(policy, make_score(revenue), make_series([revenue / 60] * 60))
            runs.append(replace(played, cell=cell))
    summary = summarise(grounds, runs, [], [], duration_s=60.0)
    figures = {figure.name: figure for figure in summary.figures}
    steady = figures["share of attainable gain, steady traffic, mean"]
    assert (steady.value, steady.reached) == (pytest.approx(1.0), True)
    assert steady.note == "1 cell, 1 more have next to nothing to gain"
    lowest = figures["share of attainable gain, lowest cell"]
    assert (lowest.value, lowest.reached) == (pytest.approx(0.5), False)
    assert lowest.note == "v100 resnet50 bursty tight"
    beaten = figures["share of cells in which clipper beats ours by more than 0.5%"]
    assert (beaten.value, beaten.reached) == (pytest.approx(1 / 3), False)
    assert [(one.cell.traffic, one.why.rival) for one in summary.beaten] == [("bursty", "clipper")]
    assert figures["mean revenue ratio, ours less clipper's"].value == pytest.approx((17 - 16.5) / 18)
    assert [standing.policy for standing in summary.standings] == ["boulton", "clipper"]
