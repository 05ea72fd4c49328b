"""A GPU that is not there: CUDA and TensorRT's runtime, exact in what an engine can get wrong.

Nothing that is queued is done before somebody waits for it, and then only what that needs: a copy reads the
host's memory as it is by then, a stream runs ahead of another unless it waits for it, and memory that was
freed or belongs to nobody cannot be touched. So a missing wait, a buffer that is written too early and a
graph with stale addresses all give wrong answers or errors. The network is computed by ONNX Runtime.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime

from server.engines.cuda.device import CaptureFailed
from server.errors import EngineError

Work = Callable[[], None]
HOLE = 1 << 20


class CudaError(Exception):
    """What this CUDA raises."""


class FakeMemory:
    def __init__(self, cuda: FakeCuda, address: int, size: int) -> None:
        self.cuda, self.address, self.size = cuda, address, size
        self.bytes = np.full(size, 0xA5, np.uint8)
        self.freed = False

    def free(self) -> None:
        self.cuda.check("mem_free")
        self.cuda.memory.pop(self.address, None)
        self.freed = True


class FakeForeign:
    """Memory of another process, mapped here: it can be touched until it is closed."""

    def __init__(self, cuda: FakeCuda, address: int, size: int) -> None:
        self.cuda, self.address, self.size = cuda, address, size
        self.closed = False

    def close(self) -> None:
        self.cuda.check("ipc_close")
        if not self.closed:
            self.closed = True
            self.cuda.unmap(self.address)


class FakeEvent:
    """The last record counts, as in CUDA."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.recorded_on: FakeStream | None = None
        self.number = 0

    def record(self, stream: FakeStream) -> None:
        self.cuda.check("event_record")
        self.recorded_on, self.number = stream, stream.queued
        stream.log("record")

    def synchronize(self) -> None:
        self.cuda.check("event_synchronize")
        if self.recorded_on is not None:
            self.recorded_on.run_to(self.number)
        self.cuda.check("event_synchronize")


class FakeStream:
    def __init__(self, cuda: FakeCuda, handle: int) -> None:
        self.cuda, self.handle = cuda, handle
        self.queue: deque[Work] = deque()
        self.queued = self.done = 0

    def push(self, work: Work) -> None:
        if self.cuda.capturing is not None and self.cuda.capturing[0] is self:
            self.cuda.capturing[1].append(work)
            return
        self.queue.append(work)
        self.queued += 1

    def run_to(self, number: int) -> None:
        while self.done < number:
            self.done += 1
            self.queue.popleft()()

    def wait_for(self, event: FakeEvent) -> None:
        self.cuda.check("stream_wait_event")
        stream, number = event.recorded_on, event.number
        self.log("wait")
        if stream is not None:
            self.push(lambda: stream.run_to(number))

    def synchronize(self) -> None:
        self.cuda.check("stream_synchronize")
        self.run_to(self.queued)
        self.cuda.check("stream_synchronize")

    def log(self, what: str) -> None:
        self.cuda.calls.append((what, self.handle))


class FakeGraph:
    def __init__(self, cuda: FakeCuda, work: list[Work]) -> None:
        self.cuda, self.work, self.closed = cuda, work, False

    def launch(self, stream: FakeStream) -> None:
        self.cuda.check("graph_launch")
        if self.closed:
            raise CudaError("the graph was destroyed")
        stream.log("launch")
        for work in self.work:
            stream.push(work)

    def close(self) -> None:
        self.closed = True


class FakeCuda:
    """Implements `server.engines.cuda.device.Cuda`.

    `failures` names calls that fail once, `broken` makes all of them fail for good from the next one on that
    needs the GPU; `capture_fails` is the reason why nothing can be captured. With `real_addresses` what is
    reserved here can be reached by others, such as ONNX Runtime on the CPU.
    """

    name, capability, driver = "Simulated A100", "SM80", "580.1"
    errors = (CudaError,)

    def __init__(self, *, real_addresses: bool = False) -> None:
        self.real_addresses = real_addresses
        self.memory: dict[int, FakeMemory] = {}
        self.streams: dict[int, FakeStream] = {}
        self.graphs: list[FakeGraph] = []
        self.calls: list[tuple[str, int]] = []
        self.capturing: tuple[FakeStream, list[Work]] | None = None
        self.failures: list[str] = []
        self.capture_fails = ""
        self.broken = False
        self.depth = 0
        self.exported: dict[bytes, FakeMemory] = {}
        self.mapped: dict[int, int] = {}
        self._next_address = HOLE

    @contextmanager
    def bound(self) -> Iterator[None]:
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def check(self, call: str) -> None:
        """Fail as told; and always where no context is bound."""
        if not self.depth:
            raise CudaError(f"{call} failed: no context is bound")
        if self.broken:
            raise CudaError(f"{call} failed: an illegal memory access was encountered")
        if call in self.failures:
            self.failures.remove(call)
            raise CudaError(f"{call} failed: {'out of memory' if call == 'mem_alloc' else 'invalid value'}")

    def stream(self) -> FakeStream:
        self.check("stream_create")
        handle = 7000 + len(self.streams)
        self.streams[handle] = FakeStream(self, handle)
        return self.streams[handle]

    def event(self) -> FakeEvent:
        self.check("event_create")
        return FakeEvent(self)

    def device_memory(self, size: int) -> FakeMemory:
        self.check("mem_alloc")
        memory = FakeMemory(self, self._next_address, size)
        self._next_address += size + HOLE
        if self.real_addresses:
            memory.address = memory.bytes.ctypes.data
        self.memory[memory.address] = memory
        return memory

    def export(self, size: int) -> tuple[bytes, FakeMemory]:
        """Memory that a client reserves: its handle, and what lies there, which the client may look at."""
        memory = FakeMemory(self, self._next_address, size)
        self._next_address += size + HOLE
        handle = memory.address.to_bytes(64, "little")
        self.exported[handle] = memory
        return handle, memory

    def foreign_memory(self, handle: bytes) -> FakeForeign:
        self.check("ipc_open")
        if handle not in self.exported:
            raise EngineError("cuIpcOpenMemHandle failed: invalid argument (1)")
        memory = self.exported[handle]
        self.memory[memory.address] = memory
        self.mapped[memory.address] = self.mapped.get(memory.address, 0) + 1
        return FakeForeign(self, memory.address, memory.size)

    def unmap(self, address: int) -> None:
        """The driver counts how often it mapped a handle."""
        self.mapped[address] -= 1
        if not self.mapped[address]:
            del self.mapped[address], self.memory[address]

    def host_array(self, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> np.ndarray:
        self.check("mem_host_alloc")
        return np.zeros(shape, dtype)

    def upload(self, target: FakeMemory, source: np.ndarray, stream: FakeStream) -> None:
        self.check("memcpy_htod")
        assert source.flags.c_contiguous
        address = target.address
        stream.log("upload")
        stream.push(lambda: self.write(address, source))

    def copy(self, target: FakeMemory, source: FakeMemory, size: int, stream: FakeStream) -> None:
        self.check("memcpy_dtod")
        begin, end = source.address, target.address
        stream.log("copy")
        stream.push(lambda: self.write(end, self.read(begin, (size,), np.dtype(np.uint8))))

    def download(self, target: np.ndarray, source: FakeMemory, stream: FakeStream) -> None:
        self.check("memcpy_dtoh")
        address = source.address
        stream.log("download")

        def copy() -> None:
            target[...] = self.read(address, target.shape, target.dtype)

        stream.push(copy)

    def capture(self, stream: FakeStream, work: Work) -> FakeGraph:
        self.check("begin_capture")
        if self.capture_fails:
            raise CaptureFailed(self.capture_fails)
        recorded: list[Work] = []
        self.capturing = stream, recorded
        try:
            work()
        finally:
            self.capturing = None
        self.graphs.append(FakeGraph(self, recorded))
        return self.graphs[-1]

    def alive(self) -> bool:
        if self.broken:
            return False
        for stream in self.streams.values():
            stream.run_to(stream.queued)
        return True

    def read(self, address: int, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self._bytes(address, size).view(dtype).reshape(shape).copy()

    def write(self, address: int, values: np.ndarray) -> None:
        self._bytes(address, values.nbytes)[:] = values.reshape(-1).view(np.uint8)

    def _bytes(self, address: int, size: int) -> np.ndarray:
        for memory in self.memory.values():
            offset = address - memory.address
            if 0 <= offset <= memory.size - size:
                return memory.bytes[offset : offset + size]
        self.broken = True
        raise CudaError("an illegal memory access was encountered")


class FakeContext:
    def __init__(self, engine: FakeUnpacked) -> None:
        self.engine = engine
        self.profile: int | None = None
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.refuses = ""

    def is_stream_capturable(self, stream: int) -> bool:
        assert stream in self.engine.cuda.streams
        assert set(self.addresses) == set(self.engine.names), "asked before it can know"
        return True

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        taken = [other.profile for other in self.engine.contexts]
        if stream not in self.engine.cuda.streams or index in taken or index >= self.engine.profiles:
            return False
        self.profile = index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = tuple(shape)
        batches = self.engine.batches
        return not batches or shape[0] == batches[self.profile or 0]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.engine.names

    def execute_async_v3(self, handle: int) -> bool:
        cuda, session = self.engine.cuda, self.engine.session
        if self.refuses or set(self.addresses) != set(self.engine.names):
            return False
        stream = cuda.streams[handle]
        stream.log("capture" if cuda.capturing else "execute")
        addresses, shapes = dict(self.addresses), dict(self.shapes)

        def compute() -> None:
            feed = {
                tensor.name: cuda.read(addresses[tensor.name], shapes[tensor.name], _dtype(tensor.type))
                for tensor in session.get_inputs()
            }
            for tensor, values in zip(session.get_outputs(), session.run(None, feed), strict=True):
                cuda.write(addresses[tensor.name], np.ascontiguousarray(values))

        stream.push(compute)
        return True


class FakeUnpacked:
    """A plan unpacked. What TensorRT would read from it is read from the ONNX file that it was built from."""

    def __init__(self, trt: ModuleType, cuda: FakeCuda, path: Path, batches: tuple[int, ...]) -> None:
        self.cuda, self.batches, self._trt = cuda, batches, trt
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.tensors = {t.name: t for t in [*self.session.get_inputs(), *self.session.get_outputs()]}
        self.names = list(self.tensors)
        self.num_io_tensors = len(self.names)
        self.profiles = max(1, len(batches))
        self.contexts: list[FakeContext] = []
        self.configs: list[FakeRuntimeConfig] = []
        self.strategies: list[object] = []
        self.no_memory = False

    @property
    def num_optimization_profiles(self) -> int:
        return self.profiles

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_dtype(self, name: str) -> object:
        names = {"float32": "FLOAT", "uint8": "UINT8", "int64": "INT64"}
        return self._trt.DataType.__members__[names[np.dtype(_dtype(self.tensors[name].type)).name]]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(dim if isinstance(dim, int) else -1 for dim in self.tensors[name].shape)

    def create_runtime_config(self) -> FakeRuntimeConfig:
        self.configs.append(FakeRuntimeConfig())
        return self.configs[-1]

    def create_execution_context(self, strategy: object) -> FakeContext | None:
        """Overloaded, as TensorRT's is: a configuration, or only how scratch memory is reserved."""
        self.cuda.check("context_create")
        if not isinstance(strategy, FakeRuntimeConfig):
            assert isinstance(strategy, self._trt.ExecutionContextAllocationStrategy)
        if self.no_memory:
            return None
        self.strategies.append(strategy)
        self.contexts.append(FakeContext(self))
        return self.contexts[-1]


class FakeRuntimeConfig:
    def __init__(self) -> None:
        self.given = b""
        self.allocation: object = None
        self.dynamic_shapes_kernel_specialization_strategy: object = None

    def set_execution_context_allocation_strategy(self, strategy: object) -> None:
        self.allocation = strategy

    def create_runtime_cache(self) -> FakeRuntimeConfig:
        return self

    def set_runtime_cache(self, cache: FakeRuntimeConfig) -> None:
        assert cache is self

    def deserialize(self, content: bytes) -> bool:
        self.given = content
        return True

    def serialize(self) -> bytes:
        return self.given + b"k"


class FakeRuntimeModule:
    """TensorRT-RTX as it is, but for its runtime, which would need a GPU."""

    def __init__(self, trt: ModuleType, cuda: FakeCuda, path: Path, batches: tuple[int, ...]) -> None:
        self._trt, self._cuda, self._path, self._batches = trt, cuda, path, batches
        self.unpacked: list[FakeUnpacked] = []
        self.without: set[str] = set()

    def __getattr__(self, name: str) -> object:
        if name in self.without:
            raise AttributeError(name)
        return getattr(self._trt, name)

    def Runtime(self, logger: object) -> FakeRuntimeModule:  # noqa: N802  # TensorRT's name
        return self

    def deserialize_cuda_engine(self, plan: bytes) -> FakeUnpacked | None:
        if not plan.startswith((b"ftrt", b"vtrt")):
            return None
        self.unpacked.append(FakeUnpacked(self._trt, self._cuda, self._path, self._batches))
        return self.unpacked[-1]


def _dtype(kind: str) -> type[np.generic]:
    return {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int64)": np.int64}[kind]
