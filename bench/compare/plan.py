"""What is compared: subjects (an engine with a network in a precision) at batch sizes, and how."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.compare.settling import SettlingRule


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """What one process runs."""

    network: str
    precision: str
    engine: str

    def __str__(self) -> str:
        """As in progress and messages."""
        return f"{self.network} {self.precision} on {self.engine}"

    @property
    def slug(self) -> str:
        """The name of its files."""
        return f"{self.network}__{self.precision}__{self.engine}"


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """What one line of the table is about; `batch` in images."""

    subject: Subject
    batch: int

    @property
    def slug(self) -> str:
        """The name of its file."""
        return f"{self.subject.slug}__b{self.batch}"


@dataclass(frozen=True, slots=True)
class Settings:
    """How every cell is measured.

    Args:
        turns: how often each cell is measured, at least 1.
        window_s: length of each measurement; with an energy counter a little more, up to its next tick.
        lead_s: the same work before each measurement, not counted: clocks and power rise.
        idle_s: for how long idle power is measured.
        threads: CPU threads of one batch, where it runs on the CPU.
        settling: when a warm-up is over.
        start_limit_s: a process that is not ready after this long has failed.
        device_index: which GPU, as CUDA counts.
    """

    turns: int = 9
    window_s: float = 2.0
    lead_s: float = 0.5
    idle_s: float = 5.0
    threads: int = 1
    settling: SettlingRule = field(default_factory=SettlingRule)
    start_limit_s: float = 1800.0
    device_index: int = 0

    @property
    def measurement_s(self) -> float:
        """About how long one measurement takes, the wait for the counter's ticks included."""
        return self.window_s + 1.5 * self.lead_s + 0.2

    def fingerprint(self) -> tuple[object, ...]:
        """What a measurement depends on; more turns and longer limits can be added later."""
        rule = self.settling
        return (self.window_s, self.lead_s, self.threads, self.device_index, rule.block_s, rule.tolerance)
