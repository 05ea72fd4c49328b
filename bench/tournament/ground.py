"""Preparing a cell: its SLO, traffic and price, and the fixed settings that policies are held against."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np

import optimizer
from bench import simulate as simulator
from bench.simulate.scenario import Scenario, default_point
from bench.tournament import fixed_price, slo, traffic
from bench.tournament.hindsight import Hindsight
from bench.tournament.joule_point import OneCap, cap_point, one_cap
from bench.tournament.plan import STEADY, Cell, Settings
from bench.tournament.results import Fixed, FormAnswer, Ground
from bench.tournament.store import fingerprint_of
from optimizer.operating_point import OperatingPoint
from optimizer.targets import FORMS, Targets
from optimizer.twin.gpu_profile import GpuProfile
from optimizer.twin.profile import load_profile

_RULES = (slo, traffic, fixed_price)
_SAMPLED_CLOCKS = 7


@lru_cache(maxsize=16)
def profile_of(gpu: str) -> GpuProfile:
    """Load a profile once a process. Raises SettingsError."""
    return load_profile(gpu)


@lru_cache(maxsize=16)
def cap_of(gpu: str, max_batch: int) -> OneCap:
    """Return the card's one power cap, found once a process."""
    return one_cap(profile_of(gpu), max_batch)


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Return a digest of the code that decides and simulates."""
    packages = [Path(package.__file__ or "").parent for package in (optimizer, simulator)]
    files = sorted(file for package in packages for file in package.rglob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def fingerprint(cell: Cell, settings: Settings) -> str:
    """Return a digest of the settings, the rules and the GPU that a cell's results depend on.

    Raises SettingsError or KeyError when there is no such GPU or network.
    """
    rules = [Path(module.__file__ or "").read_text(encoding="utf-8") for module in _RULES]
    return fingerprint_of([repr(cell), repr(settings), rules, list(_physics(cell, settings))])


def scenario_of(cell: Cell, settings: Settings, targets: Targets) -> Scenario:
    """Return what policies play: the same arrivals and noise for all of them."""
    profile = profile_of(cell.gpu)
    capacity = slo.demands_of(profile, cell.model, cell.slo, settings.max_batch).capacity
    return Scenario(
        profile=profile,
        model=cell.model,
        arrivals_s=traffic.arrivals_of(cell.traffic, capacity, settings.duration_s, settings.seed),
        duration_s=settings.duration_s,
        targets=targets,
        seed=settings.seed,
        max_batch=settings.max_batch,
        interval_s=settings.interval_s,
    )


def lay_ground(cell: Cell, settings: Settings) -> Ground:
    """Simulate the cell's fixed settings. Raises KeyError or ValueError if it cannot be played."""
    began_s, profile = time.monotonic(), profile_of(cell.gpu)
    demands = slo.demands_of(profile, cell.model, cell.slo, settings.max_batch)
    scenario = scenario_of(cell, settings, Targets(slo_p99_ms=demands.slo_ms))
    hindsight, default = Hindsight(scenario), default_point(scenario)
    priced = _price(hindsight, default)
    targets = hindsight.targets(priced.price_per_1000_images)
    return Ground(
        cell=cell,
        fingerprint=fingerprint(cell, settings),
        code=code_digest(),
        slo_ms=demands.slo_ms,
        capacity=demands.capacity,
        mean_rate=scenario.arrivals_s.size / settings.duration_s,
        price_per_1000_images=priced.price_per_1000_images,
        energy_share=priced.energy_share,
        default=hindsight.keep(default, targets),
        oracle=priced.best,
        fast=hindsight.keep(demands.fast_point, targets),
        one_cap=hindsight.keep(_capped(cell, settings, demands), targets),
        forms=dict(_forms(cell, hindsight, targets, profile.power_limit_w, default)),
        seconds=time.monotonic() - began_s,
    )


def _price(hindsight: Hindsight, default: OperatingPoint) -> fixed_price.Priced:
    def best_under(price: float) -> Fixed:
        targets = hindsight.targets(price)
        return hindsight.keep(hindsight.best(targets), targets)

    return fixed_price.find_price(hindsight.keep(default, hindsight.targets(1.0)), best_under)


def _capped(cell: Cell, settings: Settings, demands: slo.Demands) -> OperatingPoint:
    peak = traffic.peak_rate(cell.traffic, demands.capacity)
    cap_w = cap_of(cell.gpu, settings.max_batch).cap_w
    profile = profile_of(cell.gpu)
    return cap_point(profile, cell.model, cap_w, demands.slo_ms, peak, settings.max_batch)


def _forms(
    cell: Cell, hindsight: Hindsight, targets: Targets, power_limit_w: float, default: OperatingPoint
) -> Iterator[tuple[str, FormAnswer]]:
    """The paper's question is asked of steady traffic under the medium SLO."""
    if cell.traffic not in STEADY or cell.slo != "medium":
        return
    in_time = hindsight.keep(default, targets).score.in_time
    for form in FORMS:
        asked = replace(targets, form=form, zeus_max_power_w=power_limit_w)
        best = hindsight.best(asked)
        without, with_it = hindsight.worth(default, asked), hindsight.worth(best, asked)
        gain = (with_it - without) / abs(without) if in_time and without else None
        yield form, FormAnswer(best, without, with_it, gain)


def _physics(cell: Cell, settings: Settings) -> Iterator[object]:
    """What the profile says of the network, at enough points to tell two profiles apart."""
    profile = profile_of(cell.gpu)
    model = profile.model(cell.model)
    yield (profile.name, profile.sm_clocks_mhz, profile.boost_clock_mhz, profile.power_limit_w)
    yield (profile.idle_power_w, profile.clock_switch_s, repr(profile.power_sensor), repr(profile.noise))
    yield profile.energy_counter_period_s
    for clock in np.linspace(profile.sm_clocks_mhz[0], profile.sm_clocks_mhz[-1], _SAMPLED_CLOCKS).tolist():
        for batch in sorted({1, 2, 8, 32, settings.max_batch}):
            yield (f"{model.batch_s(batch, clock):.9g}", f"{model.busy_power_w(batch, clock):.9g}")
