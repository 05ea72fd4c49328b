"""CUDA shared memory: memory on the GPU that clients reserve, and share by the driver's handle of 64 bytes.

What lies there never passes through the host. Off by default: whoever may register may have the server read
and write any memory on its GPU whose handle it has. A client that frees its memory before it has unregistered
it takes the GPU away under the server's hands, which then ends and must be started anew: let in only clients
that are trusted not to do so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from server.engines.cuda.device import Cuda, ForeignMemory, on_gpu
from server.engines.cuda.ipc import HANDLE_BYTES
from server.engines.device_rows import DeviceRows
from server.errors import (
    AlreadyExists,
    CudaLost,
    EngineError,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from server.wire.shared_memory import MAX_REGIONS, check_region_name
from server.wire.tensors import RegionSlice

_LOG = logging.getLogger("boulton.shared_memory")
_BYTE = np.dtype(np.uint8)
_WHAT_IT_TAKES = (
    "another process must have reserved it with cudaMalloc on this server's GPU, and hold it still"
)


class _Mapping:
    """Implements `SharedMemory`; held by the table from the beginning. Counted in the event loop only."""

    def __init__(self, cuda: Cuda, memory: ForeignMemory) -> None:
        self._cuda = cuda
        self._memory = memory
        self._holders = 1
        self.address = memory.address
        self.closed: Future[None] = Future()

    def hold(self) -> None:
        self._holders += 1

    def release(self) -> None:
        self._holders -= 1
        if not self._holders:
            _close(self._cuda, self._memory)
            self.closed.set_result(None)


@dataclass(frozen=True, slots=True)
class _Region:
    mapping: _Mapping
    byte_size: int


class CudaSharedMemory:
    """The registered regions of one GPU. Hold what was looked up before the event loop turns.

    Args:
        open_device: opens the GPU that the engines use; called when the first region is registered.
        on_lost: told when the GPU fails for good, in the thread that registers.
    """

    def __init__(
        self, open_device: Callable[[], Cuda], on_lost: Callable[[CudaLost], None] = lambda _: None
    ) -> None:
        self._open_device = open_device
        self._on_lost = on_lost
        self._cuda: Cuda | None = None
        self._regions: dict[str, _Region] = {}
        self._registering = threading.Lock()

    def __contains__(self, name: object) -> bool:
        return name in self._regions

    def register(self, name: str, handle: bytes, device_id: int, byte_size: int) -> None:
        """Map memory under a name. May take milliseconds; may be called in any thread.

        Raises:
            AlreadyExists: the name is taken.
            InvalidArgument: name, handle, device or size is not allowed, or the driver refuses the handle.
            ResourceExhausted: too many regions.
            Internal: CUDA cannot be used.
        """
        check_region_name(name)
        _check(name, handle, device_id, byte_size)
        with self._registering:
            if name in self._regions:
                raise AlreadyExists(
                    f"shared memory region '{name}' is registered already: unregister it first"
                )
            if len(self._regions) >= MAX_REGIONS:
                raise ResourceExhausted(f"{MAX_REGIONS} regions are registered, and no more may be")
            self._regions[name] = _Region(self._map(name, handle, byte_size), byte_size)

    def unregister(self, name: str) -> Future[None] | None:
        """Forget a region; None where there is none, which is no error.

        Returns:
            What is done once the memory is unmapped: no request reads or writes it any more.
        """
        region = self._regions.pop(name, None)
        if region is None:
            return None
        region.mapping.release()
        return region.mapping.closed

    def unregister_all(self) -> list[Future[None]]:
        """Forget every region."""
        return [closed for name in tuple(self._regions) if (closed := self.unregister(name)) is not None]

    def status(self, name: str = "") -> dict[str, tuple[int, int]]:
        """Return device and byte size by name, of one region or of all. Raises `NotFound`."""
        if name and name not in self._regions:
            raise NotFound(f"shared memory region '{name}' is not registered")
        chosen = {name: self._regions[name]} if name else self._regions
        return {key: (0, region.byte_size) for key, region in chosen.items()}

    def view(self, slice: RegionSlice) -> DeviceRows:  # noqa: A002  # the protocol's word
        """Return a slice's bytes. Raises `NotFound` or `InvalidArgument`."""
        region = self._regions.get(slice.region)
        if region is None:
            raise NotFound("the request names a shared memory region that is not registered")
        if slice.offset + slice.byte_size > region.byte_size:
            raise InvalidArgument(
                f"offset {slice.offset} and byte size {slice.byte_size} reach past the end of the shared "
                f"memory region, which has {region.byte_size} bytes"
            )
        return DeviceRows(region.mapping, slice.offset, (slice.byte_size,), _BYTE)

    def close(self) -> None:
        """Forget every region. Idempotent."""
        self.unregister_all()

    def _map(self, name: str, handle: bytes, byte_size: int) -> _Mapping:
        cuda = self._device()
        try:
            with on_gpu(cuda):
                memory = cuda.foreign_memory(handle)
        except CudaLost as error:
            self._on_lost(error)
            raise Internal(f"shared memory region '{name}' cannot be opened: {error}") from error
        except EngineError as error:
            raise InvalidArgument(
                f"shared memory region '{name}' cannot be opened: {error}; {_WHAT_IT_TAKES}"
            ) from error
        if memory.size < byte_size:
            _close(cuda, memory)
            raise InvalidArgument(
                f"shared memory region '{name}' has a byte_size of {byte_size}, but the memory has "
                f"{memory.size} bytes"
            )
        return _Mapping(cuda, memory)

    def _device(self) -> Cuda:
        if self._cuda is None:
            try:
                self._cuda = self._open_device()
            except EngineError as error:
                raise Internal(f"CUDA shared memory cannot be used: {error}") from error
        return self._cuda


def _check(name: str, handle: bytes, device_id: int, byte_size: int) -> None:
    if len(handle) != HANDLE_BYTES:
        raise InvalidArgument(
            f"shared memory region '{name}' needs the raw handle of {HANDLE_BYTES} bytes that "
            f"cudaIpcGetMemHandle gives, got {len(handle)} bytes"
        )
    if device_id != 0:
        raise InvalidArgument(
            f"shared memory region '{name}' is on device {device_id}, which does not exist: this server "
            "uses one GPU, and that is its device 0"
        )
    if byte_size < 1:
        raise InvalidArgument(f"shared memory region '{name}' needs a positive byte_size, got {byte_size}")


def _close(cuda: Cuda, memory: ForeignMemory) -> None:
    try:
        with cuda.bound():
            memory.close()
    except Exception as error:
        _LOG.warning("memory shared on the GPU could not be unmapped: %s", error)
