"""Registering shared memory over the wire."""

from __future__ import annotations

from protos import grpc_service_pb2 as pb
from server.errors import Unimplemented
from server.wire.shared_memory import SystemSharedMemory

_SYSTEM_OFF = (
    "system shared memory is not enabled: start the server with --shared-memory, or send raw contents"
)
_NO_CUDA = "CUDA shared memory is not offered: use system shared memory, or send raw contents"


class SystemSharedMemoryControl:
    """The RPCs for POSIX shared memory; without `memory` all of them are refused."""

    def __init__(self, memory: SystemSharedMemory | None) -> None:
        self._memory = memory

    async def status(
        self, request: pb.SystemSharedMemoryStatusRequest
    ) -> pb.SystemSharedMemoryStatusResponse:
        """Describe one region, or all when the name is empty."""
        response = pb.SystemSharedMemoryStatusResponse()
        for name, (key, offset, byte_size) in self._enabled().status(request.name).items():
            region = response.regions[name]
            region.name, region.key, region.offset, region.byte_size = name, key, offset, byte_size
        return response

    async def register(
        self, request: pb.SystemSharedMemoryRegisterRequest
    ) -> pb.SystemSharedMemoryRegisterResponse:
        """Open a region under a name."""
        self._enabled().register(request.name, request.key, request.offset, request.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    async def unregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """Forget one region, or all when the name is empty."""
        memory = self._enabled()
        if request.name:
            memory.unregister(request.name)
        else:
            memory.unregister_all()
        return pb.SystemSharedMemoryUnregisterResponse()

    def _enabled(self) -> SystemSharedMemory:
        if self._memory is None:
            raise Unimplemented(_SYSTEM_OFF)
        return self._memory


async def cuda_status(_request: pb.CudaSharedMemoryStatusRequest) -> pb.CudaSharedMemoryStatusResponse:
    """Refuse: not offered."""
    raise Unimplemented(_NO_CUDA)


async def cuda_register(_request: pb.CudaSharedMemoryRegisterRequest) -> pb.CudaSharedMemoryRegisterResponse:
    """Refuse: not offered."""
    raise Unimplemented(_NO_CUDA)


async def cuda_unregister(
    request: pb.CudaSharedMemoryUnregisterRequest,
) -> pb.CudaSharedMemoryUnregisterResponse:
    """Succeed in forgetting all of no regions, as load generators ask before they begin; refuse a name."""
    if request.name:
        raise Unimplemented(_NO_CUDA)
    return pb.CudaSharedMemoryUnregisterResponse()
