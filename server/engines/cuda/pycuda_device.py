"""CUDA through pycuda: the only module that imports it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from server.engines.cuda.device import DeviceMemory, Event, ForeignMemory, Graph, Stream
from server.engines.cuda.graphs import GraphLibrary
from server.engines.cuda.ipc import IpcLibrary
from server.engines.device_rows import Located
from server.engines.engine import Array
from server.errors import EngineError

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_KERNEL_MODULE_VERSION = Path("/sys/module/nvidia/version")


def open_cuda(index: int) -> PycudaDevice:
    """Open a GPU by its index, as CUDA counts.

    Its primary context, which TensorRT uses too, is retained for as long as the process lives.

    Raises:
        EngineError: pycuda is not installed, or there is no such GPU.
    """
    try:
        from pycuda import driver
    except ImportError as error:
        raise EngineError(f"pycuda is not installed ({error}): pip install 'boulton[gpu]'") from error
    try:
        driver.init()
        count = driver.Device.count()
        if not 0 <= index < count:
            raise EngineError(
                f"GPU {index} does not exist: CUDA sees {count}; CUDA_VISIBLE_DEVICES may hide some"
            )
        return PycudaDevice(driver, driver.Device(index), GraphLibrary(), IpcLibrary())
    except driver.Error as error:
        raise EngineError(f"CUDA cannot be used ({error}): `boulton doctor` says what is missing") from error


class PycudaDevice:
    """Implements `server.engines.cuda.device.Cuda`; made by `open_cuda`.

    Args:
        driver: the module `pycuda.driver`.
        device: its Device.
        graphs: CUDA graphs, which pycuda lacks.
        ipc: memory of other processes.
    """

    def __init__(
        self,
        driver: Any,  # noqa: ANN401  # untyped package
        device: Any,  # noqa: ANN401
        graphs: GraphLibrary,
        ipc: IpcLibrary,
    ) -> None:
        self._driver = driver
        self._graphs = graphs
        self._ipc = ipc
        self._context = device.retain_primary_context()
        self.name: str = device.name()
        self.capability = "SM{}{}".format(*device.compute_capability())
        self.driver = _driver_version(driver)
        self.errors: tuple[type[Exception], ...] = (driver.Error,)

    @contextmanager
    def bound(self) -> Iterator[None]:
        """Push the context, and pop it whatever happens."""
        self._context.push()
        try:
            yield
        finally:
            self._driver.Context.pop()

    def stream(self) -> Stream:
        """A stream of its own: work on the default stream, which libraries use, does not hold it up."""
        return _Stream(self._driver.Stream(_NON_BLOCKING), self.bound)

    def event(self) -> Event:
        """A mark; waiting for it leaves the processor to others."""
        flags = self._driver.event_flags
        return _Event(self._driver.Event(flags.BLOCKING_SYNC | flags.DISABLE_TIMING), self.bound)

    def device_memory(self, size: int) -> DeviceMemory:
        """Bytes on the GPU."""
        return _DeviceMemory(self._driver.mem_alloc(size))

    def host_array(self, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
        """Page-locked memory, which goes with the last array that shows it."""
        return np.asarray(_PageLocked(self._driver.pagelocked_zeros(shape, dtype), self.bound))

    def foreign_memory(self, handle: bytes) -> ForeignMemory:
        """Map memory of another process."""
        return self._ipc.open(handle)

    def upload(self, target: Located, source: Array, stream: Stream) -> None:
        """Queue a copy to the GPU."""
        self._driver.memcpy_htod_async(target.address, source, _raw(stream))

    def download(self, target: Array, source: Located, stream: Stream) -> None:
        """Queue a copy from the GPU."""
        self._driver.memcpy_dtoh_async(target, source.address, _raw(stream))

    def copy(self, target: Located, source: Located, size: int, stream: Stream) -> None:
        """Queue a copy on the GPU."""
        self._driver.memcpy_dtod_async(target.address, source.address, size, _raw(stream))

    def capture(self, stream: Stream, work: Callable[[], None]) -> Graph:
        """Make a graph of what `work` queues."""
        return self._graphs.capture(stream, work)

    def alive(self) -> bool:
        """Whether the context still answers; it must be bound."""
        try:
            self._driver.Context.synchronize()
        except self._driver.Error:
            return False
        return True


class _DeviceMemory:
    def __init__(self, allocation: Any) -> None:  # noqa: ANN401
        self._allocation = allocation
        self.address = int(allocation)

    def free(self) -> None:
        allocation, self._allocation = self._allocation, None
        if allocation is not None:
            allocation.free()


class _Owner:
    """Holds one of pycuda's objects and lets go of it with the context bound.

    Pycuda gives back what such an object stands for when it dies, but not in a thread that has the context
    neither bound nor made: there it silently keeps it for good, and engines are closed in any thread.
    """

    def __init__(self, raw: Any, bound: Callable[[], AbstractContextManager[None]]) -> None:  # noqa: ANN401
        self.raw = raw
        self._bound = bound

    def __del__(self) -> None:
        with suppress(Exception), self._bound():  # after CudaLost there is nothing to be given back
            self.raw = None


class _PageLocked(_Owner):
    @property
    def __array_interface__(self) -> Any:  # noqa: ANN401  # numpy's own
        return self.raw.__array_interface__


class _Stream(_Owner):
    def __init__(self, raw: Any, bound: Callable[[], AbstractContextManager[None]]) -> None:  # noqa: ANN401
        super().__init__(raw, bound)
        self.handle = int(raw.handle)

    def wait_for(self, event: Event) -> None:
        self.raw.wait_for_event(_raw(event))

    def synchronize(self) -> None:
        self.raw.synchronize()


class _Event(_Owner):
    def record(self, stream: Stream) -> None:
        self.raw.record(_raw(stream))

    def synchronize(self) -> None:
        self.raw.synchronize()


def _raw(wrapped: Any) -> Any:  # noqa: ANN401
    """Pycuda's own object: streams and events come from the device that uses them."""
    return wrapped.raw


def _driver_version(driver: Any) -> str:  # noqa: ANN401
    """The kernel module's version, where Linux tells it; else that of CUDA that the driver knows."""
    try:
        return _KERNEL_MODULE_VERSION.read_text(encoding="ascii").strip()
    except OSError:
        return f"CUDA {driver.get_driver_version()}"
