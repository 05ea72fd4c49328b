"""Simulated GPUs whose networks take what their layers take: what the shipped predictors were fitted to.

The twin's own networks are scaled from ResNet-50 as wholes; `boulton calibrate --simulated` measures layers.
Both agree on what a card is, not on how parts add up: for one network they differ by up to a half in time.
Where a prediction is judged, what is predicted and what serves must be one machine, as they are in practice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from optimizer.foresight import steps_of_file
from optimizer.layers.features import FeatureTable, features
from optimizer.layers.simulated import SimulatedLayers
from optimizer.twin.gpu_profile import GpuProfile
from optimizer.twin.profile import load_profile
from optimizer.twin.surface import COLUMNS

_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_CLOCKS = 24
"""Between so many the surface goes straight: the time of layers bends little from one to the next."""


def write_layered(gpu: str, networks: Sequence[Path], folder: Path) -> Path:
    """Write the profile of a shipped GPU with these networks, made of layers, into a folder of its own.

    Args:
        gpu: name of the shipped profile.
        networks: ONNX files; called by their stems.
        folder: where a folder for the GPU is made.

    Returns:
        The profile's path. Raises SettingsError or ValueError for a GPU or a network that is no use.
    """
    profile = load_profile(gpu)
    layers = SimulatedLayers.of(profile)
    place = folder / gpu
    place.mkdir(parents=True)
    for network in networks:
        table = features(steps_of_file(network))
        lines = [",".join(COLUMNS), *_points(layers, table, _some(profile.sm_clocks_mhz))]
        place.joinpath(f"{network.stem}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = place / f"{gpu}.toml"
    path.write_text("\n".join(_lines(profile, [network.stem for network in networks])), encoding="utf-8")
    return path


def _some(clocks_mhz: Sequence[int]) -> tuple[int, ...]:
    places = np.linspace(0, len(clocks_mhz) - 1, min(_CLOCKS, len(clocks_mhz))).round().astype(int)
    return tuple(clocks_mhz[place] for place in places)


def _points(layers: SimulatedLayers, table: FeatureTable, clocks_mhz: Sequence[int]) -> Iterator[str]:
    for batch in _BATCHES:
        steps = table.at((batch,))
        for clock_mhz in clocks_mhz:
            seconds, watts = layers.seconds(steps, clock_mhz), layers.watts(steps, clock_mhz)
            run_s = float(seconds.sum())
            yield f"{batch},{clock_mhz},{run_s * 1e3:.9g},{float(seconds @ watts) / run_s:.9g}"


def _lines(profile: GpuProfile, networks: Sequence[str]) -> Iterator[str]:
    """Yield the profile as TOML; JSON's strings, numbers and lists are TOML's as well."""
    sensor, noise = profile.power_sensor, profile.noise
    single = {
        "name": profile.name,
        "source": f"layers that share out the ResNet-50 of {profile.name}; assumed",
        "sm_clocks_mhz": profile.sm_clocks_mhz,
        "boost_clock_mhz": profile.boost_clock_mhz,
        "power_limit_w": profile.power_limit_w,
        "power_cap_settle_s": profile.power_cap_settle_s,
        "idle_power_w": profile.idle_power_w,
        "clock_switch_s": profile.clock_switch_s,
        "energy_counter_period_s": profile.energy_counter_period_s,
    }
    yield from (f"{key} = {json.dumps(value)}" for key, value in single.items())
    yield f"power_sensor = {{ period_s = {sensor.period_s}, window_s = {sensor.window_s} }}"
    yield f"noise = {{ latency_cv = {noise.latency_cv}, power_cv = {noise.power_cv} }}"
    for network in networks:
        yield f"[models.{json.dumps(network)}]"
        yield f'surface = "{network}.csv"'
    yield ""
