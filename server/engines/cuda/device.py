"""The seam to CUDA: what an engine needs of it, and what becomes of its errors.

Work is queued on streams and done later. All of it belongs to a context, which a thread binds while it
queues work. An error of work that was queued shows in any later call; the errors that spoil the context show
in every later call, and only a new process is free of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import numpy as np

from server.engines.device_rows import Located
from server.engines.engine import Array
from server.errors import CudaLost, EngineError


class CaptureFailed(EngineError):
    """The work cannot become a graph, because it waits for the GPU in between, say; it runs without."""


class DeviceMemory(Protocol):
    """Bytes on the GPU."""

    @property
    def address(self) -> int:
        """Where they begin."""

    def free(self) -> None:
        """Give them back. Idempotent."""


class ForeignMemory(Protocol):
    """Bytes on the GPU that another process reserved."""

    @property
    def address(self) -> int:
        """Where they begin here."""

    @property
    def size(self) -> int:
        """How many there are at least; the driver maps whole blocks."""

    def close(self) -> None:
        """Let go of them. Idempotent. The context must be bound."""


class Event(Protocol):
    """A mark on a stream."""

    def record(self, stream: Stream) -> None:
        """Set the mark behind all that is queued."""

    def synchronize(self) -> None:
        """Sleep until the GPU has passed the mark."""


class Stream(Protocol):
    """Work that the GPU does in order."""

    @property
    def handle(self) -> int:
        """CUDA's handle, for TensorRT."""

    def wait_for(self, event: Event) -> None:
        """Let what is queued from now on wait for a mark on another stream."""

    def synchronize(self) -> None:
        """Sleep until all is done."""


class Graph(Protocol):
    """Captured work, which the GPU repeats at the price of one launch."""

    def launch(self, stream: Stream) -> None:
        """Queue it."""

    def close(self) -> None:
        """Give it back. Idempotent."""


class Cuda(Protocol):
    """One GPU."""

    @property
    def name(self) -> str:
        """E.g. NVIDIA H200."""

    @property
    def capability(self) -> str:
        """E.g. SM90."""

    @property
    def driver(self) -> str:
        """The driver's version."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What the calls below raise, but for `CaptureFailed`."""

    def bound(self) -> AbstractContextManager[None]:
        """Bind the context to this thread. May be nested."""

    def stream(self) -> Stream:
        """A stream of its own, which waits for no other."""

    def event(self) -> Event:
        """A mark."""

    def device_memory(self, size: int) -> DeviceMemory:
        """That many bytes, at least 1."""

    def host_array(self, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
        """An array of zeros that the GPU reads and writes without a detour."""

    def foreign_memory(self, handle: bytes) -> ForeignMemory:
        """Map memory of another process by its handle of 64 bytes. Raises `EngineError` with the reason."""

    def upload(self, target: Located, source: Array, stream: Stream) -> None:
        """Queue a copy to the GPU; the source must stay as it is until it is done."""

    def download(self, target: Array, source: Located, stream: Stream) -> None:
        """Queue a copy from the GPU."""

    def copy(self, target: Located, source: Located, size: int, stream: Stream) -> None:
        """Queue a copy of some bytes from one place on the GPU to another."""

    def capture(self, stream: Stream, work: Callable[[], None]) -> Graph:
        """Make a graph of what `work` queues on a stream, which is not done. Raises `CaptureFailed`."""

    def alive(self) -> bool:
        """Wait for all that was queued, and tell whether the context, which is bound, still works."""


@contextmanager
def on_gpu(cuda: Cuda) -> Iterator[None]:
    """Bind the context, and tell what went wrong.

    When something did, all that was queued is done or given up before this returns, so that nothing reads or
    writes an engine's buffers any more.

    Raises:
        CudaLost: the context can do no more; only a new process can.
        EngineError: anything else; the engine remains usable.
    """
    try:
        with cuda.bound():
            yield
    except Exception as error:
        if not _alive(cuda):
            raise CudaLost(
                f"{cuda.name} failed for good ({error}): no CUDA call of this process will succeed any more; "
                "the process must be restarted"
            ) from error
        raise _explained(cuda, error) from error


def _alive(cuda: Cuda) -> bool:
    try:
        with cuda.bound():
            return cuda.alive()
    except cuda.errors:
        return False


def _explained(cuda: Cuda, error: Exception) -> Exception:
    if not isinstance(error, cuda.errors):
        return error
    if isinstance(error, MemoryError) or "out of memory" in str(error):
        return EngineError(
            f"{cuda.name} is out of memory ({error}): lower --max-batch, or serve fewer models"
        )
    return EngineError(f"CUDA failed on {cuda.name}: {error}")
