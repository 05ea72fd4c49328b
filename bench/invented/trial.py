"""One invented scenario, played by our policy and by the default setting."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from bench.invented.card import NETWORK, invent_card
from bench.invented.traffic import invent_traffic
from bench.simulate.run import Run, simulate, simulate_fixed
from bench.simulate.scenario import Scenario, default_point
from optimizer.policies.boulton import BoultonPolicy
from optimizer.targets import JOULES_PER_KWH, Targets
from optimizer.twin.gpu_profile import GpuProfile
from optimizer.twin.surface import SurfacePhysics

LATE_ALLOWED = 0.01
_ENERGY_PRICE_PER_KWH = 0.2


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one scenario; shares are of the images that arrived.

    Args:
        seed: what it was drawn with.
        traffic: the kind.
        load: the most images a second, as a share of what the card can answer within the SLO.
        slo_ms: the SLO.
        images: how many arrived.
        late: share of late images, ours.
        default_late: the default setting's, whose clock is the highest.
        revenue_ratio: our revenue over the default setting's.
        energy_ratio: our energy over the default setting's.
    """

    seed: int
    traffic: str
    load: float
    slo_ms: float
    images: int
    late: float
    default_late: float
    revenue_ratio: float
    energy_ratio: float

    @property
    def can_be_kept(self) -> bool:
        """Whether the default setting keeps the SLO of 99 per cent."""
        return self.default_late <= LATE_ALLOWED

    @property
    def kept(self) -> bool:
        """Whether ours keeps it."""
        return self.late <= LATE_ALLOWED


def play(seed: int, duration_s: float) -> Trial:
    """Draw a scenario and play it. The same seed draws the same."""
    scenario, traffic, load = invent(seed, duration_s)
    default = simulate_fixed(scenario, default_point(scenario))
    ours = simulate(scenario, BoultonPolicy)
    return Trial(
        seed,
        traffic,
        load,
        scenario.targets.slo_p99_ms,
        ours.images_arrived,
        _late(ours),
        _late(default),
        ours.revenue / default.revenue,
        ours.energy_j / default.energy_j,
    )


def invent(seed: int, duration_s: float) -> tuple[Scenario, str, float]:
    """Draw a scenario; returns it, the kind of its traffic, and its load."""
    random = Random(seed)
    card = invent_card(random)
    surface = card.model(NETWORK)
    assert isinstance(surface, SurfacePhysics), "an invented card is known by its surface"  # noqa: S101
    largest = surface.sweeps[-1].batch
    alone_ms = 1e3 * surface.batch_s(1, card.boost_clock_mhz)
    slo_ms = random.choice([3.0, 5.0, 12.0, 30.0]) * alone_ms + random.uniform(0.0, 3.0)
    load = random.choice([0.1, 0.3, 0.5, 0.7, 0.85])
    traffic, arrivals_s = invent_traffic(random, load * _capacity_per_s(card, largest, slo_ms), duration_s)
    scenario = Scenario(card, NETWORK, arrivals_s, duration_s, Targets(slo_ms), seed=seed, max_batch=largest)
    return _priced(scenario, random), traffic, load


def _capacity_per_s(card: GpuProfile, largest: int, slo_ms: float) -> float:
    """Images a second in the largest batches of which two fit into the SLO."""
    times_s = {
        batch: card.model(NETWORK).batch_s(batch, card.boost_clock_mhz) for batch in range(1, largest + 1)
    }
    fitting = [batch for batch, seconds in times_s.items() if 2e3 * seconds <= slo_ms] or [1]
    return fitting[-1] / times_s[fitting[-1]]


def _priced(scenario: Scenario, random: Random) -> Scenario:
    """Set prices by which energy costs the default setting 30 to 55 per cent of its income."""
    energy_j = simulate_fixed(scenario, default_point(scenario)).energy_j
    cost = energy_j / JOULES_PER_KWH * _ENERGY_PRICE_PER_KWH / random.uniform(0.3, 0.55)
    price = 1000.0 * cost / max(1, scenario.arrivals_s.size)
    targets = replace(
        scenario.targets,
        price_per_1000_images=price,
        late_penalty_per_1000_images=price * random.choice([0.0, 1.0, 2.0]),
        energy_price_per_kwh=_ENERGY_PRICE_PER_KWH,
    )
    return replace(scenario, targets=targets)


def _late(run: Run) -> float:
    return run.images_late / max(1, run.images_arrived)
