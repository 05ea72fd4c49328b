"""What to do, as values that travel to generator processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from server.client.endpoint import Endpoint

MIB = 1 << 20
# What gRPC may hold in copies of requests that are under way.
IN_FLIGHT_BYTES = 512 * MIB


@dataclass(frozen=True, slots=True)
class Closed:
    """So many clients, each with one request under way; the next follows the answer."""

    concurrency: int


@dataclass(frozen=True, slots=True)
class Poisson:
    """Requests at random times, so many a second on average, whatever the server does."""

    requests_per_s: float


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests at given times: `(time_s, images)`, times ascending from the start."""

    path: Path
    arrivals: tuple[tuple[float, int], ...]


Arrivals: TypeAlias = Closed | Poisson | Trace


@dataclass(frozen=True, slots=True)
class Pictures:
    """What fills the model's input: random numbers, zeros, or photographs.

    Args:
        kind: `random`, `zeros` or `files`.
        files: JPEG or PNG files; empty unless `kind` is `files`.
        encoded: send files as they are, for servers that decode them.
    """

    kind: str = "random"
    files: tuple[Path, ...] = ()
    encoded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """One run.

    Args:
        endpoint: the server.
        model: its name there.
        arrivals: when requests are sent.
        batch: images a request; traces have their own numbers, which are cut to `batch` where it is given.
        duration_s: what is measured.
        warmup_s: sent before, and not measured.
        drain_s: how long to wait for answers after the end.
        timeout_s: deadline of each request; None: none.
        slo_ms: beyond it an answer is late; None: nothing is.
        max_in_flight: open loop: requests under way beyond which new ones are dropped, in all.
        seed: of arrivals and random input.
        processes: generator processes.
        shared_memory: inputs travel in system shared memory.
    """

    endpoint: Endpoint
    model: str
    arrivals: Arrivals
    batch: int | None = None
    duration_s: float = 10.0
    warmup_s: float = 1.0
    drain_s: float = 10.0
    timeout_s: float | None = None
    slo_ms: float | None = None
    max_in_flight: int = 1000
    seed: int = 0
    processes: int = 1
    shared_memory: bool = False
    pictures: Pictures = Pictures()

    @property
    def open_loop(self) -> bool:
        """Whether requests are due at times of their own."""
        return not isinstance(self.arrivals, Closed)


def share_of(whole: int, processes: int, index: int) -> int:
    """How many of `whole` fall to the process `index`, dealt as evenly as possible."""
    return whole // processes + (1 if index < whole % processes else 0)
