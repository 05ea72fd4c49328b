"""What metrics show, as values: a snapshot of each model, one of the governor, and its running totals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from optimizer.governor import Record
from optimizer.holdback import Saving
from optimizer.operating_point import OperatingPoint
from optimizer.revenue import Revenue
from optimizer.telemetry import EnergySource
from server.devices.served import ControlState
from server.scheduling.statistics import ModelStatistics


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """One loaded model.

    Args:
        name: the model's name.
        version: the loaded version.
        statistics: cumulative counters since the load; the live ones may be given.
        pending_requests: requests that wait for a batch now.
        queued_images: images that wait for a batch now.
        batch_limit: largest batch in images now.
        gpu_uuid: the device that runs it.
        padded_images: rows computed in vain, to fill batches up to a size that the engine runs.
        on_gpu: whether that device is a GPU, if only a simulated one.
    """

    name: str
    version: int
    statistics: ModelStatistics
    pending_requests: int
    queued_images: int
    batch_limit: int
    gpu_uuid: str
    padded_images: int = 0
    on_gpu: bool = True


@dataclass(frozen=True, slots=True)
class DeviceMetrics:
    """What runs the networks.

    Args:
        gpu_uuid: its identity.
        control: whether its clock is set from here, and if not, why.
        failures: how often each function of NVML failed with each code.
    """

    gpu_uuid: str
    control: ControlState = ControlState.OFF
    failures: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Totals:
    """What the governor's windows add up to. Images unless said otherwise; money in the operator's currency.

    `energy_cost` covers the windows whose energy was measured; `energy_j` keeps every source apart.
    """

    decisions: int = 0
    late: int = 0
    refused: int = 0
    expired: int = 0
    cancelled: int = 0
    income: float = 0.0
    penalty: float = 0.0
    energy_cost: float = 0.0
    energy_j: Mapping[EnergySource, float] = field(default_factory=dict)

    @property
    def revenue(self) -> float:
        """Income less penalties and the cost of measured energy; may fall."""
        return self.income - self.penalty - self.energy_cost


@dataclass(frozen=True, slots=True)
class GovernorMetrics:
    """The governor and its device.

    Args:
        gpu_uuid: the device's identity.
        model: the model that is governed.
        policy: who decides.
        target: the setting last asked for.
        totals: sums over all windows.
        last: the latest window and decision; None before the first.
        paused: whether the operator lets nobody decide.
        pinned: whether the operator holds a setting.
        alarms: how often a refuge was taken before a decision.
        cpu_s: processor time of the governor's thread.
        saving: what governing saves, measured; None when nothing is held back.
    """

    gpu_uuid: str
    model: str
    policy: str
    target: OperatingPoint
    totals: Totals = Totals()
    last: Record | None = None
    paused: bool = False
    pinned: bool = False
    alarms: int = 0
    cpu_s: float = 0.0
    saving: Saving | None = None


@dataclass(frozen=True, slots=True)
class FrontEndMetrics:
    """The processes that speak gRPC for the daemon: how many listen, how many had to be replaced."""

    running: int
    restarts: int


class MetricsSource(Protocol):
    """Where a scrape reads. Called in the metrics server's thread: take copies, wait for nothing long."""

    def models(self) -> Iterable[ModelMetrics]:
        """Return every loaded model."""

    def governor(self) -> GovernorMetrics | None:
        """Return the governor; None when nothing is governed."""

    def device(self) -> DeviceMetrics:
        """Return what runs the models."""

    def front_ends(self) -> FrontEndMetrics | None:
        """Return the front ends; None where the daemon speaks gRPC for itself."""


class RunningTotals:
    """Adds up the governor's records. One writer; `value` may be read from any thread."""

    def __init__(self) -> None:
        self._value = Totals()

    @property
    def value(self) -> Totals:
        """The totals so far."""
        return self._value

    def add(self, record: Record) -> None:
        """Count one turn of the governor."""
        self._value = add_record(self._value, record)


def add_record(totals: Totals, record: Record) -> Totals:
    """Return the totals with one more turn. Energy that nothing measured adds nothing, under no source.

    Money is added up under the form `profit` only: the other forms are averages in units of their own.
    """
    traffic = record.window.traffic
    revenue = record.revenue if record.revenue.form == "profit" else _NO_MONEY
    return Totals(
        decisions=totals.decisions + 1,
        late=totals.late + traffic.late,
        refused=totals.refused + traffic.refused,
        expired=totals.expired + traffic.expired,
        cancelled=totals.cancelled + traffic.cancelled,
        income=totals.income + revenue.income,
        penalty=totals.penalty + revenue.penalty,
        energy_cost=totals.energy_cost + (revenue.energy_cost or 0.0),
        energy_j=_add_energy(totals.energy_j, record),
    )


_NO_MONEY = Revenue(0.0, 0.0, None)


def _add_energy(energy_j: Mapping[EnergySource, float], record: Record) -> Mapping[EnergySource, float]:
    energy = record.window.device.energy
    if energy.joules is None:
        return energy_j
    return {**energy_j, energy.source: energy_j.get(energy.source, 0.0) + energy.joules}
