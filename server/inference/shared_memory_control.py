"""Registering shared memory over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future

from protos import grpc_service_pb2 as pb
from server.wire.shared_regions import SharedRegions


class SystemSharedMemoryControl:
    """The RPCs for POSIX shared memory; where it is not enabled all of them are refused."""

    def __init__(self, regions: SharedRegions) -> None:
        self._regions = regions

    async def status(
        self, request: pb.SystemSharedMemoryStatusRequest
    ) -> pb.SystemSharedMemoryStatusResponse:
        """Describe one region, or all when the name is empty."""
        response = pb.SystemSharedMemoryStatusResponse()
        found = self._regions.enabled_system().status(request.name)
        for name, (key, offset, byte_size) in found.items():
            region = response.regions[name]
            region.name, region.key, region.offset, region.byte_size = name, key, offset, byte_size
        return response

    async def register(
        self, request: pb.SystemSharedMemoryRegisterRequest
    ) -> pb.SystemSharedMemoryRegisterResponse:
        """Open a region under a name."""
        memory = self._regions.enabled_system()
        self._regions.check_free(request.name)
        memory.register(request.name, request.key, request.offset, request.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    async def unregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """Forget one region, or all when the name is empty."""
        memory = self._regions.enabled_system()
        if request.name:
            memory.unregister(request.name)
        else:
            memory.unregister_all()
        return pb.SystemSharedMemoryUnregisterResponse()


class CudaSharedMemoryControl:
    """The RPCs for memory on the GPU; where it is not enabled they are refused."""

    def __init__(self, regions: SharedRegions) -> None:
        self._regions = regions

    async def status(self, request: pb.CudaSharedMemoryStatusRequest) -> pb.CudaSharedMemoryStatusResponse:
        """Describe one region, or all when the name is empty."""
        response = pb.CudaSharedMemoryStatusResponse()
        for name, (device_id, byte_size) in self._regions.enabled_cuda().status(request.name).items():
            region = response.regions[name]
            region.name, region.device_id, region.byte_size = name, device_id, byte_size
        return response

    async def register(
        self, request: pb.CudaSharedMemoryRegisterRequest
    ) -> pb.CudaSharedMemoryRegisterResponse:
        """Map a region under a name, in a thread: the driver may take its time."""
        memory = self._regions.enabled_cuda()
        self._regions.check_free(request.name)
        await asyncio.to_thread(
            memory.register, request.name, request.raw_handle, request.device_id, request.byte_size
        )
        return pb.CudaSharedMemoryRegisterResponse()

    async def unregister(
        self, request: pb.CudaSharedMemoryUnregisterRequest
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        """Forget one region, or all when the name is empty; answer when no request uses them any more.

        All of no regions may be forgotten everywhere, as load generators do before they begin.
        """
        if request.name:
            closed = self._regions.enabled_cuda().unregister(request.name)
            await _done([] if closed is None else [closed])
        elif self._regions.cuda is not None:
            await _done(self._regions.cuda.unregister_all())
        return pb.CudaSharedMemoryUnregisterResponse()


async def _done(closed: Sequence[Future[None]]) -> None:
    """Wait; who gives up waiting changes nothing."""
    await asyncio.gather(*(asyncio.shield(asyncio.wrap_future(one)) for one in closed))
