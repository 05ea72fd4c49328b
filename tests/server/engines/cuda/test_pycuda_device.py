"""The thin layer over pycuda and libcuda, against modules that record what is called: no GPU is needed."""

from __future__ import annotations

import ctypes
import sys
import threading
import weakref
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import TypeVar

import numpy as np
import pytest

from server.engines.cuda import pycuda_device
from server.engines.cuda.device import CaptureFailed, on_gpu
from server.engines.cuda.graphs import GraphLibrary
from server.engines.cuda.pycuda_device import PycudaDevice, open_cuda
from server.errors import CudaLost, EngineError

Dies = TypeVar("Dies")


class Calls(SimpleNamespace):
    """Functions by name; it can be watched dying, as its base cannot."""


class DriverError(Exception):
    pass


class DriverMemoryError(DriverError, MemoryError):
    pass


class Driver(ModuleType):
    """What is used of `pycuda.driver`; `log` holds the calls, `failing` those that fail from now on."""

    Error = DriverError

    def __init__(self, count: int = 2) -> None:
        super().__init__("pycuda.driver")
        self.log: list[object] = []
        self.failing: set[str] = set()
        self.count = count
        self.event_flags = SimpleNamespace(BLOCKING_SYNC=1, DISABLE_TIMING=2)
        self.Device = Device
        Device.driver = self
        self.Context = SimpleNamespace(pop=self.call("pop"), synchronize=self.call("synchronize"))

    def call(self, name: str, result: object = None) -> Callable[..., object]:
        def called(*arguments: object) -> object:
            self.log.append((name, *arguments))
            if name in self.failing:
                raise DriverError(f"{name} failed: an illegal memory access was encountered")
            return result

        return called

    def init(self) -> None:
        self.call("init")()

    def Stream(self, flags: int) -> SimpleNamespace:  # noqa: N802  # pycuda's name
        self.log.append(("Stream", flags))
        return self.dying(
            "stream destroy",
            Calls(
                handle=77,
                wait_for_event=self.call("wait_for_event"),
                synchronize=self.call("stream synchronize"),
            ),
        )

    def Event(self, flags: int) -> SimpleNamespace:  # noqa: N802  # pycuda's name
        self.log.append(("Event", flags))
        calls = Calls(record=self.call("record"), synchronize=self.call("event synchronize"))
        return self.dying("event destroy", calls)

    def mem_alloc(self, size: int) -> Allocation:
        self.call("mem_alloc", size)()
        return Allocation(self)

    def pagelocked_zeros(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        self.log.append(("pagelocked_zeros", shape))
        return self.dying("mem_host_free", np.zeros(shape, dtype))

    def dying(self, name: str, made: Dies) -> Dies:
        """Pycuda gives back what an object stands for when it dies."""
        weakref.finalize(made, self.call(name)).atexit = False
        return made

    def memcpy_htod_async(self, target: int, source: np.ndarray, stream: object) -> None:
        self.call("htod")(target, source.nbytes, stream.handle)

    def memcpy_dtoh_async(self, target: np.ndarray, source: int, stream: object) -> None:
        self.call("dtoh")(target.nbytes, source, stream.handle)

    def memcpy_dtod_async(self, target: int, source: int, size: int, stream: object) -> None:
        self.call("dtod")(target, source, size, stream.handle)

    def get_driver_version(self) -> int:
        return 13000


class Allocation:
    def __init__(self, driver: Driver) -> None:
        self.free = driver.call("free")

    def __int__(self) -> int:
        return 4096


class Device:
    driver: Driver

    def __init__(self, index: int) -> None:
        self.index = index

    @classmethod
    def count(cls) -> int:
        return cls.driver.count

    def name(self) -> str:
        return "Made-up GPU"

    def compute_capability(self) -> tuple[int, int]:
        return (12, 0)

    def retain_primary_context(self) -> SimpleNamespace:
        return SimpleNamespace(push=self.driver.call("push"))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    package = ModuleType("pycuda")
    package.driver = driver
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    return driver


@pytest.fixture
def cuda(driver: Driver) -> PycudaDevice:
    cuda = open_cuda(1)
    driver.log.clear()
    return cuda


def test_it_says_which_gpu_it_is(cuda: PycudaDevice) -> None:
    assert (cuda.name, cuda.capability) == ("Made-up GPU", "SM120")


def test_the_driver_version_is_the_kernel_modules_where_linux_tells(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    path = tmp_path / "version"
    monkeypatch.setattr(pycuda_device, "_KERNEL_MODULE_VERSION", path)
    assert open_cuda(0).driver == "CUDA 13000"
    path.write_text("580.95.05\n")
    assert open_cuda(0).driver == "580.95.05"


@pytest.mark.parametrize("index", [-1, 2])
def test_a_gpu_that_is_not_there_is_refused(driver: Driver, index: int) -> None:
    with pytest.raises(EngineError, match=f"GPU {index} does not exist: CUDA sees 2; CUDA_VISIBLE_DEVICES"):
        open_cuda(index)


def test_no_driver_and_no_pycuda_say_what_to_do(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.failing.add("init")
    with pytest.raises(EngineError, match=r"CUDA cannot be used \(init failed.*`boulton doctor`"):
        open_cuda(0)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(EngineError, match=r"pycuda is not installed .*boulton\[gpu\]"):
        open_cuda(0)


def test_the_context_is_popped_whatever_happens(cuda: PycudaDevice, driver: Driver) -> None:
    with pytest.raises(ZeroDivisionError), cuda.bound():
        _ = 1 / 0
    assert [call[0] for call in driver.log] == ["push", "pop"]


def test_calls_reach_pycuda_with_its_own_objects(cuda: PycudaDevice, driver: Driver) -> None:
    stream, event, memory = cuda.stream(), cuda.event(), cuda.device_memory(64)
    array = cuda.host_array((4, 4), np.dtype("f4"))
    cuda.upload(memory, array[:2], stream)
    event.record(stream)
    stream.wait_for(event)
    cuda.download(array, memory, stream)
    event.synchronize()
    stream.synchronize()
    memory.free()
    memory.free()
    names = [call[0] for call in driver.log]
    assert names == [
        *("Stream", "Event", "mem_alloc", "pagelocked_zeros", "htod", "record", "wait_for_event", "dtoh"),
        *("event synchronize", "stream synchronize", "free"),
    ]
    assert driver.log[0] == ("Stream", 1)  # no other stream waits for it, nor it for another
    assert driver.log[1] == ("Event", 3)  # waiting sleeps, and nothing is timed
    assert driver.log[4] == ("htod", 4096, 32, 77)
    assert driver.log[7] == ("dtoh", 64, 4096, 77)
    assert (stream.handle, memory.address) == (77, 4096)


@pytest.mark.parametrize(
    ("make", "end"),
    [
        (lambda cuda: cuda.stream(), "stream destroy"),
        (lambda cuda: cuda.event(), "event destroy"),
        (lambda cuda: cuda.host_array((2, 3), np.dtype("u1")), "mem_host_free"),
    ],
)
def test_what_dies_in_another_thread_is_given_back_with_the_context_bound(
    cuda: PycudaDevice, driver: Driver, make: Callable[[PycudaDevice], object], end: str
) -> None:
    held = [make(cuda)]
    driver.log.clear()
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert driver.log == [("push",), (end,), ("pop",)]


def test_page_locked_memory_stays_while_any_array_shows_it(cuda: PycudaDevice, driver: Driver) -> None:
    array = cuda.host_array((4, 2), np.dtype("f4"))
    assert (array.shape, array.dtype, array.flags.writeable, array.flags.c_contiguous) == (
        (4, 2),
        np.float32,
        True,
        True,
    )
    part = array[1:3]
    part[...] = 7
    assert array.sum() == 28
    driver.log.clear()
    del array
    assert driver.log == []
    part[...] = 8
    del part
    assert driver.log == [("push",), ("mem_host_free",), ("pop",)]


def test_a_dead_context_gives_nothing_back_and_raises_nothing(cuda: PycudaDevice, driver: Driver) -> None:
    stream = cuda.stream()
    driver.failing.add("push")
    del stream


def test_copies_on_the_gpu_go_from_place_to_place(cuda: PycudaDevice, driver: Driver) -> None:
    stream = cuda.stream()
    cuda.copy(SimpleNamespace(address=8192), SimpleNamespace(address=4100), 12, stream)
    assert driver.log[-1] == ("dtod", 8192, 4100, 12, 77)


def test_memory_of_others_is_mapped_by_libcuda(cuda: PycudaDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda._ipc, "open", lambda handle: f"mapped {len(handle)} bytes of handle")
    assert cuda.foreign_memory(bytes(64)) == "mapped 64 bytes of handle"


def test_an_error_that_passes_and_one_that_stays(cuda: PycudaDevice, driver: Driver) -> None:
    with pytest.raises(EngineError, match="CUDA failed on Made-up GPU: once") as passed, on_gpu(cuda):
        raise DriverError("once")
    assert not isinstance(passed.value, CudaLost)
    driver.failing.add("synchronize")
    with pytest.raises(CudaLost, match="once"), on_gpu(cuda):
        raise DriverError("once")
    driver.failing.add("push")
    with pytest.raises(CudaLost, match="push failed"), on_gpu(cuda):
        pass


def test_too_little_memory_says_what_to_do(cuda: PycudaDevice) -> None:
    with pytest.raises(EngineError, match=r"out of memory .*lower --max-batch"), on_gpu(cuda):
        raise DriverMemoryError("cuMemAlloc failed")


class Library:
    """libcuda's functions for graphs."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.codes: dict[str, int] = {}

    def __getattr__(self, name: str) -> object:
        def function(*arguments: object) -> int:
            self.log.append(name)
            if name in ("cuStreamEndCapture", "cuGraphInstantiateWithFlags"):
                out = arguments[1] if name == "cuStreamEndCapture" else arguments[0]
                out._obj.value = 1234  # what ctypes.byref points to
            if name == "cuGetErrorString":
                arguments[1]._obj.value = b"operation not permitted"
            return self.codes.get(name, 0)

        return function


CAPTURED = ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuGraphDestroy"]


def test_a_graph_is_captured_launched_and_given_back() -> None:
    library = Library()
    stream = SimpleNamespace(handle=77)
    graph = GraphLibrary(library).capture(stream, lambda: library.log.append("work"))
    assert library.log == [CAPTURED[0], "work", *CAPTURED[1:]]
    library.log.clear()
    graph.launch(stream)
    graph.close()
    graph.close()
    assert library.log == ["cuGraphLaunch", "cuGraphExecDestroy"]
    with pytest.raises(EngineError, match="closed"):
        graph.launch(stream)


@pytest.mark.parametrize("name", CAPTURED[:3])
def test_a_capture_that_fails_says_why(name: str) -> None:
    library = Library()
    library.codes[name] = 900
    with pytest.raises(CaptureFailed, match=rf"{name} failed: operation not permitted \(900\)"):
        GraphLibrary(library).capture(SimpleNamespace(handle=77), lambda: None)


def test_a_capture_ends_when_the_work_fails() -> None:
    library = Library()
    with pytest.raises(ZeroDivisionError):
        GraphLibrary(library).capture(SimpleNamespace(handle=77), lambda: 1 / 0)
    assert library.log[-2:] == ["cuStreamEndCapture", "cuGraphDestroy"]


def test_a_launch_that_fails_says_why() -> None:
    library = Library()
    graph = GraphLibrary(library).capture(SimpleNamespace(handle=77), lambda: None)
    library.codes["cuGraphLaunch"] = 700
    with pytest.raises(EngineError, match=r"cuGraphLaunch failed: operation not permitted \(700\)"):
        graph.launch(SimpleNamespace(handle=77))


def test_without_a_driver_nothing_can_be_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(CaptureFailed, match=r"libcuda.so.1: cannot open"):
        GraphLibrary().capture(SimpleNamespace(handle=77), lambda: None)
