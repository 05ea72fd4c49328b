"""The process of one engine: loads it, then warms up and measures as it is told."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

from bench.compare.estimates import thinned
from bench.compare.measuring import Runner
from bench.compare.records import KEPT_LATENCIES
from bench.compare.settling import SettlingRule
from server.engines.engine import Engine
from server.engines.registry import EngineRequest, engine_kind
from server.errors import CudaLost, EngineError
from server.exporting.complaints import in_a_line


@dataclass(frozen=True, slots=True)
class Warm:
    """Order: run batches of this size until their times settle. Answered by `Warmed`."""

    batch: int
    rule: SettlingRule


@dataclass(frozen=True, slots=True)
class Measure:
    """Order: run batches of this size. Answered by `Began`, and after `Stop` by `Ran`."""

    batch: int
    lead_s: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Order: end the measurement."""


Order: TypeAlias = Warm | Measure


@dataclass(frozen=True, slots=True)
class Ready:
    """Answer: the engine is loaded and has answered a batch of one."""

    platform: str
    on_gpu: bool


@dataclass(frozen=True, slots=True)
class Warmed:
    """Answer: how the warm-up went, and the most memory this process ever had (None: not known)."""

    seconds: float
    settled: bool
    host_peak_mib: float | None


@dataclass(frozen=True, slots=True)
class Began:
    """Answer: what runs from now on counts."""


@dataclass(frozen=True, slots=True)
class Ran:
    """Answer: what was run."""

    batches: int
    seconds: float
    latencies_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """Answer: the order, or everything when `final`, could not be carried out."""

    reason: str
    final: bool = False


Answer: TypeAlias = Ready | Warmed | Began | Ran | Failed
Load: TypeAlias = Callable[[str, EngineRequest], Engine]


def work(connection: Connection, engine: str, request: EngineRequest, log: Path) -> None:
    """Be the process of an engine until the other end says None or hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    _speak_into(log)
    _prepare_frameworks(request.cache_dir)
    with suppress(EOFError, OSError):
        obey(connection, engine, request)


def load_engine(name: str, request: EngineRequest) -> Engine:
    """Load an engine by name."""
    return engine_kind(name).load(request)


def obey(connection: Connection, name: str, request: EngineRequest, load: Load = load_engine) -> None:
    """Load, then carry out orders. Everything that fails is answered, and ends only what it must."""
    try:
        engine = load(name, request)
        _check(engine, request.served_batches)
        runner = Runner(engine)
    except Exception as error:  # frameworks raise whatever they like, and the others must go on
        connection.send(Failed(_reason(error), final=True))
        return
    connection.send(Ready(engine.platform, runs_on_gpu(name, engine.platform)))
    lost = False
    while not lost and (order := connection.recv()) is not None:
        try:
            connection.send(_carried_out(connection, runner, order))
        except (EOFError, OSError):
            raise
        except Exception as error:  # e.g. no memory for this batch: a smaller one may do
            lost = isinstance(error, CudaLost)
            connection.send(Failed(_reason(error), final=lost))
    with suppress(EngineError):
        engine.close()


def runs_on_gpu(name: str, platform: str) -> bool:
    """Whether an engine computes on a GPU; those that run on either say so in their platform."""
    where = engine_kind(name).where
    return where == "gpu" or (where == "either" and platform.rpartition("_")[2] in ("cuda", "gpu"))


def _carried_out(connection: Connection, runner: Runner, order: Order) -> Answer:
    if isinstance(order, Warm):
        settling = runner.warm_up(order.batch, order.rule)
        return Warmed(settling.seconds, settling.settled, _peak_mib())
    ran = runner.measure(order.batch, order.lead_s, lambda: connection.send(Began()), connection.poll)
    connection.recv()
    latencies_ms = thinned([1e3 * latency_s for latency_s in ran.latencies_s], KEPT_LATENCIES)
    return Ran(ran.count, ran.seconds, latencies_ms)


def _check(engine: Engine, batches: Sequence[int]) -> None:
    if engine.max_batch == 0 and tuple(batches):
        raise EngineError(
            "the network has no dynamic batch dimension: only networks that take any batch are compared"
        )


def _peak_mib() -> float | None:
    """What getrusage says would include the parent's memory, from between fork and exec.

    None where the kernel does not tell: some that sandboxes put in place of Linux do not.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(peaks[0]) / 1024.0 if peaks else None


def _reason(error: BaseException) -> str:
    text = in_a_line(error)[:1000]
    return text if isinstance(error, EngineError) else f"{type(error).__name__}: {text}"


def _speak_into(log: Path) -> None:
    """Let whatever the frameworks print go to a file: the terminal belongs to the progress bar."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _prepare_frameworks(cache_dir: Path | None) -> None:
    """Have them leave memory to the others and keep what they compile where it is looked for next time."""
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as NVML counts
    if cache_dir is not None:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache_dir / "inductor")
