"""Decisions and losses counted on revenue that is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from bench.tournament.plan import Cell
from bench.tournament.results import Series
from bench.tournament.score import Score
from bench.warm_start.layered import write_layered
from bench.warm_start.settling import Settling, decisions_in_the_mean, decisions_to_stay, settling
from bench.warm_start.summary import kept, summary
from bench.warm_start.trials import RIGHT, WRONG, Pace, Sources, Trial, bend, try_cell
from optimizer.foresight import steps_of_file
from optimizer.layers.features import features
from optimizer.layers.simulated import SimulatedLayers
from optimizer.models.prior import Prior
from optimizer.twin.profile import load_profile

SCORE = Score(1.0, 1.0, 0.0, 0.0, 100, 100, 2, 1.0, 1.0, 1.0, 1.0)


def series(revenue: list[float]) -> Series:
    none = [0] * len(revenue)
    return Series(none, none, none, none, none, none, none, revenue)


def test_what_is_lost_is_counted_in_seconds_of_the_final_rate() -> None:
    found = settling(series([0.0] * 5 + [2.0] * 35), SCORE, 2.0, 1.0)
    assert found == Settling(decisions=5, sustained=5, lost_s=5.0, late_share=0.02, final_per_s=2.0)


def test_a_run_that_settles_for_less_is_found_out() -> None:
    found = settling(series([1.8] * 40), SCORE, 2.0, 1.0)
    assert found.decisions == 0
    assert found.sustained is None
    assert found.lost_s == pytest.approx(2.0)


def test_who_falls_back_has_not_settled() -> None:
    assert decisions_to_stay([1.0] * 15 + [0.0] * 5 + [1.0] * 30, 1.0) == 20
    assert decisions_to_stay([1.0] * 15 + [0.93] * 5 + [1.0] * 30, 1.0) == 0
    assert decisions_to_stay([1.0] * 19, 1.0) is None
    assert decisions_to_stay([-1.0] * 40, -1.0) is None


def trial(cold: int | None, warm: int | None, prior: str = RIGHT, late: float = 0.0) -> Trial:
    one, other = (Settling(count, count, 1.0, share, 2.0) for count, share in ((cold, 0.0), (warm, late)))
    return Trial(Cell("v100", "resnet50", "steady-low", "tight"), 0, prior, one, other)


def pace(cold: int | None, warm: int | None, whole: tuple[int, int] = (9, 9)) -> Pace:
    return Pace(Cell("v100", "resnet50", "steady-low", "tight"), RIGHT, *whole, cold, warm)


def test_single_decisions_show_in_the_mean_over_seeds() -> None:
    """One seed is lucky in its second window; in the mean only the fourth is enough, and so is the next."""
    runs = [[0.2, 1.0, 0.8, 1.0, 1.0], [0.2, 0.6, 0.8, 1.0, 0.9]]
    assert decisions_in_the_mean(runs, 1.0) == 3
    assert decisions_in_the_mean([[0.2, 1.0, 0.5, 1.0, 1.0]], 1.0) == 3, "a lucky window is no rate"
    assert decisions_in_the_mean(runs, 2.0) is None
    assert decisions_in_the_mean(runs, -1.0) is None


def test_cells_that_leave_nothing_to_save_are_in_the_first_mean_only() -> None:
    paces = [pace(4, 1), pace(0, 0), pace(1, 1)]
    figures = summary([trial(4, 1)], paces, 60)
    assert figures[RIGHT]["in_force"]["ratio"] == pytest.approx(2 / 5)
    assert figures[RIGHT]["in_force_where_cold_needs_two"]["ratio"] == pytest.approx(1 / 4)
    assert figures[RIGHT]["whole_windows"]["ratio"] == 1.0
    assert kept(figures)


def test_the_promise_is_broken_where_one_of_both_means_is() -> None:
    assert not kept(summary([trial(4, 1)], [pace(4, 1), pace(1, 3)], 60))
    assert not kept(summary([trial(4, 1)], [pace(1, 0)], 60)), "nothing to halve is no proof"


def test_a_run_that_never_settles_counts_in_full() -> None:
    found = summary([trial(4, None)], [pace(4, None)], 60)[RIGHT]
    for name in ("in_force", "decisions"):
        one = found[name]
        assert (one["warm"], one["warm_needs_more"], one["never"]) == (60.0, 1, [0, 1])


def test_late_images_and_lower_ends_are_counted() -> None:
    found = summary([trial(4, 1, late=0.02), trial(4, 1, late=0.005)], [pace(4, 1)], 60)[RIGHT]
    assert found["late_share_most_more"] == pytest.approx(0.02)
    assert found["cells_later_by_more_than_1_percent"] == 1
    assert found["cells_that_end_lower_by_more_than_1_percent"] == 0


def test_every_wrong_prior_is_another_one() -> None:
    clocks = (500.0, 1000.0, 1500.0)
    table = np.array([[4.0, 3.0, 2.0], [9.0, 6.0, 5.0]])
    prior = Prior((1, 8), clocks, table, 1.0 / table, 0.1)
    assert bend(prior, RIGHT) is prior
    tables = []
    for name in WRONG:
        bent = bend(prior, name)
        assert bent.running_w is not None
        tables.append((bent.times_s.tolist(), bent.running_w.tolist()))
    assert len({repr(one) for one in tables}) == len(WRONG)
    with pytest.raises(KeyError):
        bend(prior, "right")


def test_without_networks_nothing_is_played(tmp_path: Path) -> None:
    cell = Cell("v100", "resnet50", "steady-low", "tight")
    with pytest.raises(ValueError, match=r"resnet50.onnx cannot be read"):
        try_cell(cell, Sources(tmp_path, tmp_path), 1, 40.0, (RIGHT,))


def test_networks_made_of_layers_take_what_their_layers_take(tmp_path: Path) -> None:
    given = helper.make_tensor_value_info("x", 1, (1, 32, 56, 56))
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="only")
    values = numpy_helper.from_array(np.zeros((64, 32, 3, 3), np.float32), "w")
    answer = helper.make_tensor_value_info("y", 1, (1, 64, 54, 54))
    network = tmp_path / "little-1.onnx"
    onnx.save(helper.make_model(helper.make_graph([node], "little", [given], [answer], [values])), network)
    path = write_layered("a100", [network], tmp_path / "made")
    made, shipped = load_profile(path), load_profile("a100")
    assert replace(made, models={}, source="") == replace(shipped, models={}, source="")
    layers, steps = SimulatedLayers.of(shipped), features(steps_of_file(network)).at((8,))
    for clock in (shipped.sm_clocks_mhz[0], shipped.boost_clock_mhz):
        assert made.model("little-1").batch_s(8, clock) == pytest.approx(
            float(layers.seconds(steps, clock)[0])
        )
        watts = float(layers.watts(steps, clock)[0])
        assert made.model("little-1").busy_power_w(8, clock) == pytest.approx(watts)
