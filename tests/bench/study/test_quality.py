from __future__ import annotations

from dataclasses import replace

import pytest
from training_runs import make_run

pytest.importorskip("scikit_posthocs", reason="studies need the extra study")

from bench.study.quality import Check, check, clean
from bench.study.runs import Run
from optimizer.telemetry import Energy, EnergySource


def cell(
    count: int = 10, gpu: str = "RTX 3070", architecture: str = "vgg16", joules_per_image: float = 1.0
) -> list[Run]:
    return [make_run(gpu, architecture, n, joules_per_image=joules_per_image) for n in range(count)]


def finding(runs: list[Run], name: str) -> Check:
    return next(one for one in check(runs) if one.name == name)


def test_equal_runs_are_all_kept() -> None:
    assert clean(cell()).kept == tuple(cell())


def test_a_training_that_learned_nothing_is_dropped_with_its_reason() -> None:
    runs = [*cell(), make_run(number=10, f1=0.1)]
    cleaned = clean(runs, least_f1=0.5)
    assert [(one.run.number, one.reason) for one in cleaned.dropped] == [(10, "learned nothing: F1 0.10")]


def test_a_run_beside_which_something_else_ran_is_dropped() -> None:
    runs = [make_run(number=n, gpu_use=0.5 + n / 1000) for n in range(10)]
    cleaned = clean([*runs, make_run(number=10, gpu_use=0.75)])
    assert [one.run.number for one in cleaned.dropped] == [10]
    assert "use of the device 0.75" in cleaned.dropped[0].reason


def test_a_run_whose_images_cost_far_more_is_dropped() -> None:
    runs = [make_run(number=n, joules_per_image=1 + n / 100) for n in range(10)]
    assert [one.run.number for one in clean([*runs, make_run(number=10, joules_per_image=3.0)]).dropped] == [
        10
    ]


def test_what_is_far_out_elsewhere_may_be_usual_in_its_own_cell() -> None:
    runs = cell(joules_per_image=1.0) + cell(architecture="mobilenet_v2", joules_per_image=0.1)
    assert not clean(runs).dropped


def test_a_cell_of_few_runs_keeps_them_all() -> None:
    runs = [*cell(6), make_run(number=6, joules_per_image=9.0)]
    assert not clean(runs).dropped


def test_energy_in_another_unit_shows() -> None:
    run = make_run()
    wrong = replace(run, energy=Energy(1000.0 * (run.energy.joules or 0), EnergySource.NVML_POWER))
    assert finding([run], "unit of energy").passed
    assert not finding([run, wrong], "unit of energy").passed


def test_energy_that_nobody_measured_has_no_unit_to_check() -> None:
    assert "unit of energy" not in {one.name for one in check([make_run(joules_per_image=None)])}


def test_uneven_cells_gaps_and_doubles_show() -> None:
    runs = [*cell(3), *cell(3, gpu="RTX 3090"), *cell(4, architecture="resnet50"), make_run(number=0)]
    assert "RTX 3090: 3" in finding(runs, "runs per cell").finding
    assert finding(runs, "cells without runs").finding == "resnet50, batch 32, RTX 3090"
    assert finding(runs, "runs told twice").finding == "vgg16, batch 32, RTX 3070, run 0"


def test_power_above_the_limit_and_shares_above_one_show() -> None:
    run = replace(make_run(), power_limit_w=50.0, gpu_use=1.2)
    assert not finding([run], "mean power above the limit").passed
    assert not finding([run], "shares outside 0 to 1").passed
