"""CUDA through pycuda: the only module that imports it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from server.engines.cuda.device import DeviceMemory, Event, ForeignMemory, Graph, Stream
from server.engines.cuda.graphs import GraphLibrary
from server.engines.cuda.ipc import IpcLibrary
from server.engines.device_rows import Located
from server.engines.engine import Array
from server.errors import EngineError

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
        """A stream of its own."""
        return _Stream(self._driver.Stream())

    def event(self) -> Event:
        """A mark; waiting for it leaves the processor to others."""
        flags = self._driver.event_flags
        return _Event(self._driver.Event(flags.BLOCKING_SYNC | flags.DISABLE_TIMING))

    def device_memory(self, size: int) -> DeviceMemory:
        """Bytes on the GPU."""
        return _DeviceMemory(self._driver.mem_alloc(size))

    def host_array(self, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
        """Page-locked memory."""
        array: Array = self._driver.pagelocked_zeros(shape, dtype)
        return array

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


class _Stream:
    def __init__(self, raw: Any) -> None:  # noqa: ANN401
        self.raw = raw
        self.handle = int(raw.handle)

    def wait_for(self, event: Event) -> None:
        self.raw.wait_for_event(_raw(event))

    def synchronize(self) -> None:
        self.raw.synchronize()


class _Event:
    def __init__(self, raw: Any) -> None:  # noqa: ANN401
        self.raw = raw

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
