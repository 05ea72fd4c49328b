"""Both kinds of shared memory under one set of names."""

from __future__ import annotations

from dataclasses import dataclass

from server.engines.device_rows import DeviceRows
from server.errors import AlreadyExists, Unimplemented
from server.wire.cuda_shared_memory import CudaSharedMemory
from server.wire.shared_memory import SharedBytes, SystemSharedMemory
from server.wire.tensors import RegionSlice

SYSTEM_OFF = (
    "system shared memory is not enabled: start the server with --shared-memory, or send raw contents"
)
CUDA_OFF = (
    "CUDA shared memory is not enabled: start the server with --cuda-shared-memory and an engine that "
    "runs on a GPU, or use system shared memory, or send raw contents"
)


@dataclass(frozen=True, slots=True)
class SharedRegions:
    """What the operator enabled; None: not that kind."""

    system: SystemSharedMemory | None = None
    cuda: CudaSharedMemory | None = None

    def enabled_system(self) -> SystemSharedMemory:
        """Return system shared memory. Raises `Unimplemented` where it is not enabled."""
        if self.system is None:
            raise Unimplemented(SYSTEM_OFF)
        return self.system

    def enabled_cuda(self) -> CudaSharedMemory:
        """Return CUDA shared memory. Raises `Unimplemented` where it is not enabled."""
        if self.cuda is None:
            raise Unimplemented(CUDA_OFF)
        return self.cuda

    def check_free(self, name: str) -> None:
        """Raise `AlreadyExists` when either kind has a region of that name."""
        if any(name in memory for memory in (self.system, self.cuda) if memory is not None):
            raise AlreadyExists(f"shared memory region '{name}' is registered already: unregister it first")

    def view(self, slice: RegionSlice) -> SharedBytes | DeviceRows:  # noqa: A002  # the protocol's word
        """Return a slice's bytes, on the host or on the GPU.

        Raises:
            NotFound: there is no such region.
            InvalidArgument: the slice reaches past its end.
            Unimplemented: neither kind is enabled.
        """
        if self.cuda is not None and (self.system is None or slice.region in self.cuda):
            return self.cuda.view(slice)
        return self.enabled_system().view(slice)

    def close(self) -> None:
        """Forget every region. Idempotent."""
        for memory in (self.system, self.cuda):
            if memory is not None:
                memory.close()
