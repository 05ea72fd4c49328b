"""Layers on a simulated GPU: what a calibration measures where there is no GPU. Everything here is assumed.

The twin knows whole networks. Here the time and energy of its ResNet-50 are shared out among layers, by the
rule after which the twin's profiles scale ResNet-50 to other networks: computation goes with multiply-adds (6
times as dear in grouped and depthwise convolutions), memory time with the numbers read and written, fixed
parts with the number of layers, and 65 % of an image's dynamic energy with the former, 35 % with the latter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.layers.dataset import MeasuredNetwork
from optimizer.layers.features import FeatureTable
from optimizer.twin.gpu_profile import GpuProfile
from optimizer.twin.physics import ParametricPhysics

Array = NDArray[np.float64]

_MODEL, _MULTIPLY_ADDS, _ELEMENTS, _LAYERS = "resnet50", 4.089e9, 21.78e6, 54
_GROUPED_WORK = 6.0
_ENERGY_OF_WORK = 0.65


@dataclass(frozen=True, slots=True)
class SimulatedLayers:
    """The layers of any network on the GPU of a profile.

    Args:
        profile: of the GPU.
        network: its ResNet-50.
    """

    profile: GpuProfile
    network: ParametricPhysics

    @classmethod
    def of(cls, profile: GpuProfile) -> SimulatedLayers:
        """Take the ResNet-50 of a profile. Raises ValueError when it has none that layers can be made of."""
        network = profile.models.get(_MODEL)
        if not isinstance(network, ParametricPhysics):
            raise ValueError(
                f"profile {profile.name} has no parametric {_MODEL}, so its layers are not known"
            )
        return cls(profile, network)

    def seconds(self, table: FeatureTable, clock_mhz: float) -> Array:
        """Return the time of each row at a clock."""
        network, stretch = self.network, self.network.chip.boost_clock_mhz / clock_mhz
        fixed_ms = (network.launch_ms + network.memory_ms + network.compute_ms * stretch) / _LAYERS
        compute_ms = network.compute_ms_per_image * _work(table) / _MULTIPLY_ADDS * stretch
        memory_ms = network.memory_ms_per_image * _elements(table) / _ELEMENTS
        sharpness = network.roofline_sharpness
        answer: Array = (fixed_ms + (compute_ms**sharpness + memory_ms**sharpness) ** (1.0 / sharpness)) / 1e3
        return answer

    def watts(self, table: FeatureTable, clock_mhz: float) -> Array:
        """Return the mean power while each row runs at a clock."""
        network, chip = self.network, self.network.chip
        image_s = network.batch_s(2, chip.boost_clock_mhz) - network.batch_s(1, chip.boost_clock_mhz)
        of_work = _ENERGY_OF_WORK * _work(table) / _MULTIPLY_ADDS
        of_traffic = (1.0 - _ENERGY_OF_WORK) * _elements(table) / _ELEMENTS
        in_memory = network.memory_activity_share
        scale = in_memory + (1.0 - in_memory) * chip.voltage(clock_mhz) ** 2
        dynamic_j = network.activity_w * image_s * (of_work + of_traffic) * scale
        answer: Array = chip.standing_power_w(clock_mhz) + dynamic_j / self.seconds(table, clock_mhz)
        return answer

    def measure(
        self,
        name: str,
        table: FeatureTable,
        batch: int,
        clocks_mhz: Sequence[int],
        rng: np.random.Generator,
        rounds: int = 1,
    ) -> Iterator[MeasuredNetwork]:
        """Yield one network at each clock, with the noise of the profile.

        Args:
            name: of the network.
            table: its steps at `batch`.
            batch: images to a batch.
            clocks_mhz: to set.
            rng: draws the noise.
            rounds: how many measurements are averaged.
        """
        count = len(table.kinds)
        latency_cv, power_cv = (
            each / math.sqrt(rounds) for each in (self.profile.noise.latency_cv, self.profile.noise.power_cv)
        )
        for clock_mhz in clocks_mhz:
            seconds, watts = self.seconds(table, clock_mhz), self.watts(table, clock_mhz)
            run_s = float(seconds.sum()) * float(np.exp(rng.normal(0.0, latency_cv)))
            power_w = float(seconds @ watts / seconds.sum()) * float(np.exp(rng.normal(0.0, power_cv)))
            yield MeasuredNetwork(
                network=name,
                batch=batch,
                table=table,
                seconds=seconds * np.exp(rng.normal(0.0, latency_cv, count)),
                watts=watts * np.exp(rng.normal(0.0, power_cv, count)),
                run_s=run_s,
                energy_j=run_s * power_w,
                clock_mhz=clock_mhz,
            )


def _work(table: FeatureTable) -> Array:
    """Return multiply-adds, those in groups counted as often as they are dear."""
    dear = np.where(table.column("groups") > 1, _GROUPED_WORK, 1.0)
    answer: Array = table.column("multiply_adds") * dear
    return answer


def _elements(table: FeatureTable) -> Array:
    bits = table.column("bits")
    flowing = (table.column("input_bytes") + table.column("output_bytes")) * 8.0 / bits
    answer: Array = flowing + table.column("weight_bytes") * 8.0 / table.column("weight_bits")
    return answer
