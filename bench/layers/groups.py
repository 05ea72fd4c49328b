"""Layers of one kind, added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.layers.cost import LayerCost
from bench.layers.energy import LayerEnergy


@dataclass(frozen=True, slots=True)
class KindCost:
    """All layers of a kind in one batch.

    Args:
        kind: its name.
        layers: how many.
        seconds: of all of them.
        share: of the network's time.
        multiply_adds: of all.
        operations: of all whose operators are known.
        traffic_bytes: of all.
        above_idle_j: of all; None where it is not known.
        energy_share: of the network's energy; likewise.
    """

    kind: str
    layers: int
    seconds: float
    share: float
    multiply_adds: int
    operations: int
    traffic_bytes: int
    above_idle_j: float | None
    energy_share: float | None

    @property
    def multiply_add_s(self) -> float | None:
        """What one multiply-add takes; None where there are none."""
        return self.seconds / self.multiply_adds if self.multiply_adds else None


def by_kind(layers: Sequence[LayerCost], energies: Sequence[LayerEnergy | None]) -> tuple[KindCost, ...]:
    """Add up the layers of each kind; most time first."""
    whole_j = _sum_of(energies)
    found: dict[str, list[int]] = {}
    for place, layer in enumerate(layers):
        found.setdefault(layer.kind, []).append(place)
    kinds = [
        _added(kind, [layers[place] for place in places], [energies[place] for place in places], whole_j)
        for kind, places in found.items()
    ]
    return tuple(sorted(kinds, key=lambda kind: -kind.seconds))


def _added(
    kind: str, layers: Sequence[LayerCost], energies: Sequence[LayerEnergy | None], whole_j: float | None
) -> KindCost:
    joules = _sum_of(energies)
    return KindCost(
        kind,
        len(layers),
        sum(layer.seconds for layer in layers),
        sum(layer.share for layer in layers),
        sum(layer.multiply_adds for layer in layers),
        sum(layer.operations or 0 for layer in layers),
        sum(layer.traffic_bytes for layer in layers),
        joules,
        joules / whole_j if joules is not None and whole_j else None,
    )


def _sum_of(energies: Sequence[LayerEnergy | None]) -> float | None:
    known = [energy.above_idle_j for energy in energies if energy is not None]
    return sum(known) if known else None
