"""CUDA graphs, which pycuda lacks: the driver's own functions, called through ctypes.

Signatures from the CUDA driver API, "Stream Management" and "Graph Management" (CUDA 11.4 and newer).
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import byref, c_int, c_ulonglong, c_void_p
from typing import Any

from server.engines.cuda.device import CaptureFailed, Stream
from server.engines.cuda.driver_library import DriverLibrary
from server.errors import EngineError

# Other threads, which may load models meanwhile, must not spoil a capture.
_CAPTURE_MODE_THREAD_LOCAL = 1
_ARGUMENTS = {
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, c_void_p),
    "cuGraphInstantiateWithFlags": (c_void_p, c_void_p, c_ulonglong),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGraphDestroy": (c_void_p,),
}


class GraphLibrary:
    """The driver's functions for graphs. The context must be bound in all calls.

    Args:
        library: see `DriverLibrary`.
    """

    def __init__(self, library: Any | None = None) -> None:  # noqa: ANN401  # ctypes makes functions on the fly
        self._driver = DriverLibrary(_ARGUMENTS, library)

    def capture(self, stream: Stream, work: Callable[[], None]) -> LaunchableGraph:
        """Make a graph of what `work` queues on the stream. The capture is ended whatever happens.

        Raises:
            CaptureFailed: the work cannot be captured, and why.
        """
        self.call("cuStreamBeginCapture_v2", stream.handle, _CAPTURE_MODE_THREAD_LOCAL)
        graph = c_void_p()
        try:
            work()
        except Exception:
            self.code("cuStreamEndCapture", stream.handle, byref(graph))
            self._destroy(graph)
            raise
        self.call("cuStreamEndCapture", stream.handle, byref(graph))
        executable = c_void_p()
        try:
            self.call("cuGraphInstantiateWithFlags", byref(executable), graph, 0)
        finally:
            self._destroy(graph)
        return LaunchableGraph(self, executable)

    def call(self, name: str, *arguments: object) -> None:
        """Call a function. Raises `CaptureFailed` with the driver's words."""
        code = self.code(name, *arguments)
        if code:
            raise CaptureFailed(f"{name} failed: {self.message(code)}")

    def code(self, name: str, *arguments: object) -> int:
        """Call a function and return its CUresult; 0 is success."""
        try:
            return self._driver.code(name, *arguments)
        except OSError as error:
            raise CaptureFailed(f"the driver's library cannot be loaded: {error}") from error

    def message(self, code: int) -> str:
        """The driver's words for a CUresult."""
        return self._driver.message(code)

    def _destroy(self, graph: c_void_p) -> None:
        if graph.value:
            self.code("cuGraphDestroy", graph)


class LaunchableGraph:
    """Implements `server.engines.cuda.device.Graph`."""

    def __init__(self, library: GraphLibrary, executable: c_void_p) -> None:
        self._library = library
        self._executable: c_void_p | None = executable

    def launch(self, stream: Stream) -> None:
        """Queue it. Raises `EngineError` with the driver's words."""
        if self._executable is None:
            raise EngineError("the graph is closed")
        code = self._library.code("cuGraphLaunch", self._executable, stream.handle)
        if code:
            raise EngineError(f"cuGraphLaunch failed: {self._library.message(code)}")

    def close(self) -> None:
        """Give it back."""
        executable, self._executable = self._executable, None
        if executable is not None:
            self._library.code("cuGraphExecDestroy", executable)
