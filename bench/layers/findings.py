"""What a study of layers shows, in sentences whose figures are computed from it.

The questions are those of Cai et al. (NeuralPower, ACML 2017) and of the paper behind this project: which
kinds of layers take the time and the energy, whether the power is the same in all of them, and what small
kernels and depth cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bench.layers.cost import LayerCost
from bench.layers.energy import LayerEnergy, Rule
from bench.layers.groups import KindCost
from bench.layers.roofline import Bound

_NAMED = 3
_WORTH_COMPARING = 0.01  # of the multiply-adds: below, a kind says little about what a multiply-add takes
_LITTLE_WORK = 0.1
_BALANCED = 0.1
_FAR_BELOW = 0.25


def find(
    layers: Sequence[LayerCost], energies: Sequence[LayerEnergy | None], kinds: Sequence[KindCost]
) -> tuple[str, ...]:
    """Return the findings; `kinds` as `by_kind` gives them, most time first."""
    return (*_times(kinds), *_energy(kinds, energies), *_kernels(kinds), *_depth(layers), *_bounds(layers))


def _times(kinds: Sequence[KindCost]) -> Iterator[str]:
    whole = sum(kind.operations for kind in kinds)
    for kind in kinds[:_NAMED]:
        arithmetic = f"{kind.operations / whole:.1%} of the arithmetic" if whole else "no known arithmetic"
        yield f"{kind.kind}: {kind.share:.1%} of the time for {arithmetic}, in {_layers(kind.layers)}"


def _energy(kinds: Sequence[KindCost], energies: Sequence[LayerEnergy | None]) -> Iterator[str]:
    rules = {energy.rule for energy in energies if energy is not None}
    if Rule.REPEATED not in rules:
        how = "was divided by time" if Rule.BY_TIME in rules else "was not measured"
        yield f"whether some layers draw more power than others cannot be said: energy {how}"
        return
    most = sorted((kind for kind in kinds if kind.energy_share), key=lambda kind: -(kind.energy_share or 0.0))
    for kind in most[:_NAMED]:
        yield f"{kind.kind}: {kind.energy_share:.1%} of the energy above idle, {kind.share:.1%} of the time"
    yield _balance(kinds)


def _balance(kinds: Sequence[KindCost]) -> str:
    known = [(kind, kind.above_idle_j / kind.seconds) for kind in kinds if kind.above_idle_j and kind.seconds]
    seconds = np.array([kind.seconds for kind, _ in known])
    watts = np.array([power_w for _, power_w in known])
    mean = float(np.average(watts, weights=seconds))
    spread = float(np.sqrt(np.average((watts - mean) ** 2, weights=seconds))) / mean
    low, high = min(known, key=lambda pair: pair[1]), max(known, key=lambda pair: pair[1])
    verdict = "balanced" if spread <= _BALANCED else "not balanced"
    return (
        f"power is {verdict} across kinds of layers: {mean:.1f} W above idle on average, {spread:.0%} "
        f"spread; least in {low[0].kind} ({low[1]:.1f} W), most in {high[0].kind} ({high[1]:.1f} W)"
    )


def _kernels(kinds: Sequence[KindCost]) -> Iterator[str]:
    whole = sum(kind.multiply_adds for kind in kinds)
    known = [(kind, kind.multiply_add_s) for kind in kinds if kind.multiply_adds > _WORTH_COMPARING * whole]
    compared = sorted(((each_s, kind) for kind, each_s in known if each_s), key=lambda pair: pair[0])
    if len(compared) < 2:
        return
    best_s, best = compared[0]
    yield f"a multiply-add is quickest in {best.kind}: {best_s * 1e12:.1f} ps"
    for each_s, kind in compared[1:]:
        yield f"in {kind.kind} it takes {each_s / best_s:.1f} times as long"


def _depth(layers: Sequence[LayerCost]) -> Iterator[str]:
    """What many small layers cost: the smallest ones, and the least that any layer takes."""
    working = sorted((layer for layer in layers if layer.operations), key=lambda layer: layer.operations or 0)
    whole = sum(layer.operations or 0 for layer in working)
    shares = np.cumsum([layer.operations or 0 for layer in working]) / whole if whole else np.array([])
    small = [layer for layer, share in zip(working, shares, strict=True) if share <= _LITTLE_WORK]
    if small:
        time = sum(layer.share for layer in small)
        yield (
            f"the {len(small)} smallest of {_layers(len(working))} that compute do "
            f"{shares[len(small) - 1]:.1%} of the arithmetic in {time:.1%} of the time"
        )
    least = min(layers, key=lambda layer: layer.seconds)
    floor = len(layers) * least.share
    yield (
        f"no layer takes less than {least.seconds * 1e6:.1f} us ({least.kind}); that much in each of "
        f"{_layers(len(layers))} is {floor:.1%} of the time"
    )


def _bounds(layers: Sequence[LayerCost]) -> Iterator[str]:
    for bound in Bound:
        bound_by = [layer for layer in layers if layer.bound is bound]
        yield f"bound by {bound.value}: {_layers(len(bound_by))}, {_time_of(bound_by):.1%} of the time"
    slow = [layer for layer in layers if layer.of_roof is not None and layer.of_roof < _FAR_BELOW]
    yield (f"below {_FAR_BELOW:.0%} of the roofline: {_layers(len(slow))}, {_time_of(slow):.1%} of the time")


def _time_of(layers: Sequence[LayerCost]) -> float:
    return sum(layer.share for layer in layers)


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"
