"""Memory that another process reserved on the GPU, mapped into this one by its handle.

Signatures from the CUDA driver API, "Memory Management" (CUDA 11 and newer).
"""

from __future__ import annotations

from ctypes import POINTER, Structure, byref, c_char, c_size_t, c_uint, c_uint64
from typing import Any, ClassVar

from server.engines.cuda.driver_library import DriverLibrary
from server.errors import EngineError

HANDLE_BYTES = 64
_LAZY_ENABLE_PEER_ACCESS = 1


class _Handle(Structure):
    _fields_: ClassVar = [("reserved", c_char * HANDLE_BYTES)]


_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "cuIpcOpenMemHandle_v2": (POINTER(c_uint64), _Handle, c_uint),
    "cuIpcCloseMemHandle": (c_uint64,),
    "cuMemGetAddressRange_v2": (POINTER(c_uint64), POINTER(c_size_t), c_uint64),
}


class IpcLibrary:
    """The driver's functions for memory of other processes. The context must be bound in all calls.

    Args:
        library: see `DriverLibrary`.
    """

    def __init__(self, library: Any | None = None) -> None:  # noqa: ANN401
        self._driver = DriverLibrary(_ARGUMENTS, library)

    def open(self, handle: bytes) -> MappedMemory:
        """Map what a handle stands for. Raises `EngineError` with the driver's words."""
        if len(handle) != HANDLE_BYTES:
            raise EngineError(f"a handle of memory on the GPU has {HANDLE_BYTES} bytes, got {len(handle)}")
        address, base, size = c_uint64(), c_uint64(), c_size_t()
        by_value = _Handle.from_buffer_copy(handle)
        self._call("cuIpcOpenMemHandle_v2", byref(address), by_value, _LAZY_ENABLE_PEER_ACCESS)
        try:
            self._call("cuMemGetAddressRange_v2", byref(base), byref(size), address)
        except EngineError:
            self.close(address.value)
            raise
        return MappedMemory(self, address.value, base.value + size.value - address.value)

    def close(self, address: int) -> None:
        """Unmap it. Raises `EngineError`."""
        self._call("cuIpcCloseMemHandle", address)

    def _call(self, name: str, *arguments: object) -> None:
        try:
            code = self._driver.code(name, *arguments)
        except OSError as error:
            raise EngineError(f"the driver's library cannot be loaded: {error}") from error
        if code:
            raise EngineError(f"{name} failed: {self._driver.message(code)}")


class MappedMemory:
    """Implements `server.engines.cuda.device.ForeignMemory`."""

    def __init__(self, library: IpcLibrary, address: int, size: int) -> None:
        self._library: IpcLibrary | None = library
        self.address = address
        self.size = size

    def close(self) -> None:
        """Unmap it. Idempotent. Raises `EngineError`."""
        library, self._library = self._library, None
        if library is not None:
            library.close(self.address)
