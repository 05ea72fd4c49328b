"""Under which conditions a comparison was made: the method in words, the machine, the versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.compare.energy import GpuIdentity
from bench.compare.networks import NetworkFile
from bench.compare.plan import Settings
from bench.compare.summary import Baseline
from bench.serving.machine import Machine

_INTERVALS = (
    "Figures are medians over the turns. Intervals are those of the median by order statistics (sign test), "
    "which assume nothing about the distribution: from the k-th smallest to the k-th largest turn, for the "
    "largest k that covers 95 %; fewer than 6 turns cover less, as stated. Ratios are taken turn by turn. "
    "p99 is over the batches of all turns."
)
_ENERGY = (
    "Joules are those of the whole device, idle power included, between two ticks of its counter while the "
    "engine works without pause; the GPU's own for engines on a GPU, the CPU package's for those on the CPU. "
    "Idle power is measured apart, with all processes loaded and none at work."
)


@dataclass(frozen=True, slots=True)
class Conditions:
    """All that a figure belongs to.

    Args:
        command: the command line.
        date: when the run began, ISO 8601.
        machine: what it ran on.
        gpu: None: there is none, or NVML does not know it.
        simulated: whether the GPU's readings are modelled.
        settings: how it was measured.
        baseline: what ratios are to.
        versions: of every engine's packages.
        files: what was run.
        notes: what of the energy is not measured, and why.
        unavailable: networks and precisions that could not be had, and why.
    """

    command: str
    date: str
    machine: Machine
    gpu: GpuIdentity | None
    simulated: bool
    settings: Settings
    baseline: Baseline | None
    versions: Mapping[str, Mapping[str, str]]
    files: tuple[NetworkFile, ...]
    notes: tuple[str, ...]
    unavailable: tuple[str, ...]

    @property
    def hardware(self) -> str:
        """The processors in a line."""
        gpu = "no GPU" if self.gpu is None else f"{self.gpu.name}, driver {self.gpu.driver}"
        aside = " (SIMULATED by the stand-in library)" if self.simulated else ""
        return f"{self.machine.cpu}, {self.machine.cores} cores; {gpu}{aside}"

    @property
    def method(self) -> tuple[str, ...]:
        """How it was measured, a paragraph an item."""
        s = self.settings
        processes = (
            "Every engine runs in a process of its own, on pictures of noise; one on the CPU has "
            f"{s.threads} threads. All processes of a network are started first, and each batch size is "
            f"warmed up {s.settling}."
        )
        turns = (
            f"Then come {s.turns} turns: in each, in another order, every cell runs {s.lead_s:g} s uncounted "
            f"and {s.window_s:g} s counted. Batches follow each other without pause. Engines that overlap "
            "the upload of one batch with the run of another do so for throughput and energy; they run "
            "batches one by one for latency."
        )
        return (processes, turns, _INTERVALS, _ENERGY)
