"""What batch size and power limit do to the time, the energy and the cost of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.study.zeus import Job, Setting

ETA = 0.5


@dataclass(frozen=True, slots=True)
class Against:
    """A setting against another: energy and cost that it saves, time that it takes more; shares."""

    setting: Setting
    energy_saved: float
    time_added: float
    cost_saved: float


@dataclass(frozen=True, slots=True)
class Surface:
    """A job's settings, all optima being of one epoch.

    Args:
        job: which.
        settings: how many were measured.
        fastest: the baseline: the least time of all.
        least_energy: of all settings.
        least_cost: of all settings.
        limit_alone: least energy at the fastest setting's batch size.
        batch_alone: the largest batch against the smallest, both at the highest power limit.
        front: settings that no other beats in both time and energy, fastest first.
        over_limit: settings whose mean power is above their limit.
    """

    job: Job
    settings: int
    fastest: Setting
    least_energy: Against
    least_cost: Against
    limit_alone: Against
    batch_alone: Against | None
    front: tuple[Setting, ...]
    over_limit: tuple[Setting, ...]


def cost_j(setting: Setting, eta: float, highest_limit_w: float) -> float:
    """Return Zeus' cost (equation 2): eta * energy + (1 - eta) * highest power limit * time, in joules."""
    return eta * setting.joules + (1.0 - eta) * highest_limit_w * setting.seconds


def survey(settings: Sequence[Setting], eta: float = ETA) -> tuple[Surface, ...]:
    """Return the surface of every job, in order of their names. `eta`: the weight of energy, 0 to 1."""
    jobs = sorted({one.job for one in settings})
    return tuple(_surface(job, [one for one in settings if one.job == job], eta) for job in jobs)


def _surface(job: Job, own: Sequence[Setting], eta: float) -> Surface:
    highest_w = max(one.power_limit_w for one in own)
    fastest = min(own, key=lambda one: (one.seconds, one.joules))
    same_batch = [one for one in own if one.batch_size == fastest.batch_size]
    unlimited = sorted((one for one in own if one.power_limit_w == highest_w), key=lambda one: one.batch_size)

    def against(setting: Setting, base: Setting = fastest) -> Against:
        return Against(
            setting,
            energy_saved=1.0 - setting.joules / base.joules,
            time_added=setting.seconds / base.seconds - 1.0,
            cost_saved=1.0 - cost_j(setting, eta, highest_w) / cost_j(base, eta, highest_w),
        )

    return Surface(
        job,
        len(own),
        fastest,
        least_energy=against(min(own, key=lambda one: one.joules)),
        least_cost=against(min(own, key=lambda one: cost_j(one, eta, highest_w))),
        limit_alone=against(min(same_batch, key=lambda one: one.joules)),
        batch_alone=against(unlimited[-1], unlimited[0]) if len(unlimited) > 1 else None,
        front=_front(own),
        over_limit=tuple(one for one in own if one.watts > one.power_limit_w),
    )


def _front(own: Sequence[Setting]) -> tuple[Setting, ...]:
    front: list[Setting] = []
    for one in sorted(own, key=lambda one: (one.seconds, one.joules)):
        if not front or one.joules < front[-1].joules:
            front.append(one)
    return tuple(front)
