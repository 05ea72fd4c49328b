from __future__ import annotations

from itertools import product

import pytest
from training_runs import make_run

pytest.importorskip("scikit_posthocs", reason="studies need the extra study")

from bench.study.claims import reproduce
from bench.study.findings import Findings, find
from bench.study.runs import Run

JOULES = {"mobilenet_v2": 0.2, "xception": 0.6, "vgg16": 1.0}
GFLOPS = {"mobilenet_v2": 0.06, "xception": 3.0, "vgg16": 10.0}
F1 = {"mobilenet_v2": 0.97, "xception": 0.98, "vgg16": 0.99}
USES = {"mobilenet_v2": 0.2, "xception": 0.6, "vgg16": 0.9}


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """On the big GPU, networks that leave it idle cost more: 3, 2 and 1 times."""
    made = []
    for (place, (net, joules)), number in product(enumerate(JOULES.items()), range(4)):
        settings = {"f1": F1[net], "gigaflops": GFLOPS[net]}
        cost = joules * (1 + number / 100)
        made.append(make_run("RTX 3070", net, number, joules_per_image=cost, gpu_use=0.9, **settings))
        made.append(
            make_run(
                "RTX 3090", net, number, joules_per_image=(3 - place) * cost, gpu_use=USES[net], **settings
            )
        )
    return made


@pytest.fixture(scope="module")
def found(runs: list[Run]) -> Findings:
    return find(runs)


def test_the_cheapest_network_in_place_of_the_dearest(found: Findings) -> None:
    exchange = next(one for one in found.exchanges if one.gpu == "RTX 3070")
    assert (exchange.dear, exchange.cheap) == ("vgg16", "mobilenet_v2")
    assert exchange.saving.share == pytest.approx(0.8)
    assert exchange.f1_lost == pytest.approx(0.02)


def test_f1_and_flops_follow_energy_where_they_do(found: Findings) -> None:
    for related in (found.correctness, found.flops):
        rho = {one.gpu: one.cells.rho for one in related}
        assert rho["RTX 3070"] == pytest.approx(1.0)


def test_the_fit_of_devices(found: Findings) -> None:
    over = {(one.architecture, one.gpu): one.over_best for one in found.fits}
    assert over["mobilenet_v2", "RTX 3090"] == pytest.approx(3.0)
    assert over["vgg16", "RTX 3090"] == pytest.approx(1.0)
    (trend,) = found.fit_trends
    assert (trend.gpu, trend.correlation.rho) == ("RTX 3090", pytest.approx(-1.0))


def test_networks_differ_on_each_device(found: Findings) -> None:
    assert [one.within for one in found.architectures] == ["RTX 3070, batch 32", "RTX 3090, batch 32"]
    assert all(one.difference.p_value < 0.05 for one in found.architectures)


def test_what_is_beaten_in_both_is_not_among_the_best(runs: list[Run]) -> None:
    worse = make_run("RTX 3070", "resnet50", joules_per_image=1.0, f1=0.5)
    best = {one.cell.architecture for one in find([*runs, worse]).cells if one.best}
    assert best == set(JOULES)


def test_one_batch_size_has_nothing_to_compare_but_two_have(runs: list[Run]) -> None:
    assert find(runs).batch_sizes == ()
    larger = [make_run("RTX 3070", "vgg16", n, batch_size=64, joules_per_image=0.5) for n in range(4)]
    (compared,) = find([*runs, *larger]).batch_sizes
    assert compared.within == "vgg16, RTX 3070"


def test_energy_and_time_are_never_mixed(runs: list[Run]) -> None:
    slow = make_run("cpu", "vgg16", joules_per_image=None, seconds=50.0)
    found = find([*runs, slow])
    assert (found.measure, found.unit) == ("time per image", "ms")
    cell = next(one for one in found.cells if one.cell.gpu == "cpu")
    assert (cell.cost, cell.joules) == (pytest.approx(50.0), None)


@pytest.mark.parametrize(("joules", "held"), [(0.1862, True), (0.19, False)])
def test_a_published_saving_is_held_or_not(joules: float, held: bool) -> None:
    runs = [
        make_run("RTX 3070", net, n, joules_per_image=cost)
        for net, cost in (("vgg16", 1.0), ("mobilenet_v2", joules))
        for n in range(3)
    ]
    (claim,) = reproduce(runs, runs, 0.5)
    assert claim.held is held
    assert dict(claim.others)["nothing left out"] == pytest.approx(1 - joules)


def test_other_runs_hold_no_published_figure(runs: list[Run]) -> None:
    assert reproduce(runs[:1], runs[:1], 0.5) == ()
