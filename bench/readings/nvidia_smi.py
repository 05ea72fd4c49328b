"""What nvidia-smi says of a GPU, and whether it says what we read."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from optimizer.devices.nvml.failures import NvmlFailure
from optimizer.devices.nvml.library import Card, Nvml

# Figures that stand still, and those that move: how far they may be from what was read before and after.
_SLACK = {
    "clocks.sm": 30.0,
    "clocks.mem": 10.0,
    "temperature.gpu": 2.0,
    "power.draw": 15.0,
    "power.limit": 0.01,
    "power.default_limit": 0.01,
    "power.min_limit": 0.01,
    "power.max_limit": 0.01,
}
_TEXTS = ("uuid", "name", "driver_version")
_ANSWER_WITHIN_S = 30.0

Figures = Mapping[str, str | float | None]


class NoNvidiaSmi(Exception):
    """nvidia-smi is not there or failed; says which."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """One figure. `ours` was read before and after nvidia-smi; None: not to be had."""

    figure: str
    ours: tuple[str | float | None, str | float | None]
    theirs: str | float | None
    agrees: bool


def compare_with_nvidia_smi(nvml: Nvml, card: Card) -> tuple[Agreement, ...]:
    """Ask both for everything that both know. Raises NoNvidiaSmi."""
    before = _ours(nvml, card)
    theirs = ask_nvidia_smi(card.uuid)
    after = _ours(nvml, card)
    return tuple(_agreement(name, (before[name], after[name]), theirs[name]) for name in (*_TEXTS, *_SLACK))


def ask_nvidia_smi(uuid: str) -> Figures:
    """Return what nvidia-smi says of a GPU; None for what it calls not available. Raises NoNvidiaSmi."""
    names = [*_TEXTS, *_SLACK]
    command = [
        "nvidia-smi",
        f"--id={uuid}",
        f"--query-gpu={','.join(names)}",
        "--format=csv,noheader,nounits",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_WITHIN_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoNvidiaSmi(f"nvidia-smi cannot be run: {error}") from error
    values = [value.strip() for value in done.stdout.strip().split(",")]
    if done.returncode != 0 or len(values) != len(names):
        raise NoNvidiaSmi(f"nvidia-smi ended with {done.returncode}: {done.stdout}{done.stderr}".strip())
    return {name: _value(name, value) for name, value in zip(names, values, strict=True)}


def _value(name: str, text: str) -> str | float | None:
    if text.startswith("[") or text == "N/A":
        return None
    return text if name in _TEXTS else float(text)


def _ours(nvml: Nvml, card: Card) -> Figures:
    questions: Mapping[str, Callable[[], str | float]] = {
        "uuid": lambda: card.uuid,
        "name": card.name,
        "driver_version": nvml.driver_version,
        "clocks.sm": card.sm_clock_mhz,
        "clocks.mem": card.memory_clock_mhz,
        "temperature.gpu": card.temperature_c,
        "power.draw": lambda: card.power_w().watts,
        "power.limit": card.power_limit_w,
        "power.default_limit": card.default_power_limit_w,
        "power.min_limit": lambda: card.power_limit_range_w()[0],
        "power.max_limit": lambda: card.power_limit_range_w()[1],
    }
    figures: dict[str, str | float | None] = {}
    for name, ask in questions.items():
        try:
            figures[name] = ask()
        except NvmlFailure:
            figures[name] = None
    return figures


def _agreement(
    name: str, ours: tuple[str | float | None, str | float | None], theirs: str | float | None
) -> Agreement:
    numbers = [value for value in (*ours, theirs) if isinstance(value, int | float)]
    if len(numbers) == len(ours) + 1:
        low, high = min(numbers[:2]) - _SLACK[name], max(numbers[:2]) + _SLACK[name]
        return Agreement(name, ours, theirs, low <= numbers[2] <= high)
    return Agreement(name, ours, theirs, ours == (theirs, theirs))
