"""Every engine by name: where it runs, what it needs, and how it is loaded. Names are imported when used."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from server.engines.cuda.device import Cuda
from server.engines.engine import Engine
from server.engines.onnxruntime_providers import CUDA, INSTALL_GPU, TENSORRT, cuda, tensorrt
from server.engines.padding import padded
from server.errors import EngineError

Where = Literal["cpu", "gpu", "either"]


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What to load, and how.

    Args:
        onnx_path: the network; external data beside it. The precision is the file's.
        max_batch: largest batch in images, at least 1; None: the engine's default.
        threads: CPU threads of one batch; None: the engine's default.
        device_index: which GPU, counted as CUDA counts; engines on the CPU do without.
        served_batches: the only sizes to run, ascending, ending with `max_batch`; (): the engine's choice.
        cache_dir: where built engines and timings are kept between starts; None: nowhere.
        build_missing: whether TensorRT may build a plan that is not in `cache_dir`.
    """

    onnx_path: Path
    max_batch: int | None = None
    threads: int | None = None
    device_index: int = 0
    served_batches: tuple[int, ...] = ()
    cache_dir: Path | None = None
    build_missing: bool = True


@dataclass(frozen=True, slots=True)
class EngineKind:
    """One way to run a network.

    Args:
        name: what `--engine` takes.
        where: what it runs on; "either": the GPU where its framework sees one, else the CPU.
        modules: one of these must be there to be imported; (): nothing beyond Boulton itself.
        install: what to do when it is not.
        open: loads it; may serve certain batch sizes only. Raises `EngineError`.
        obstacle: what else stands in its way on this machine; empty: nothing. May import the module.
        for_comparison: never served, only compared with.
        exchanges: whether it takes and answers tensors in clients' memory on the GPU.
    """

    name: str
    where: Where
    modules: tuple[str, ...]
    install: str
    open: Callable[[EngineRequest], Engine]
    obstacle: Callable[[], str] = str
    for_comparison: bool = False
    exchanges: bool = False

    def available(self) -> str | None:
        """Say why this engine cannot run on this machine and what to do; None: it can, as far as one sees."""
        if self.modules and not any(map(find_spec, self.modules)):
            return f"{self.name} needs the module {' or '.join(self.modules)}: {self.install}"
        obstacle = self.obstacle()
        return f"{self.name}: {obstacle}" if obstacle else None

    def load(self, request: EngineRequest) -> Engine:
        """Load a network; it takes any batch up to its largest.

        Raises:
            EngineError: the engine is missing, or the file cannot be used on it, and why.
        """
        if (reason := self.available()) is not None:
            raise EngineError(reason)
        engine = self.open(request)
        try:
            return padded(engine)
        except EngineError:
            engine.close()
            raise


def engine_names(*, served: bool = True) -> tuple[str, ...]:
    """Names that `engine_kind` knows; with `served` only those that may answer clients."""
    return tuple(name for name, kind in ENGINE_KINDS.items() if not (served and kind.for_comparison))


def engine_kind(name: str) -> EngineKind:
    """Look an engine up. Raises EngineError for a name that is none."""
    try:
        return ENGINE_KINDS[name]
    except KeyError:
        raise EngineError(f"no engine is called {name!r}; there are {', '.join(ENGINE_KINDS)}") from None


def _onnxruntime(request: EngineRequest) -> Engine:
    from server.engines.onnxruntime import load_onnxruntime_engine

    return load_onnxruntime_engine(
        request.onnx_path,
        max_batch=request.max_batch,
        threads=request.threads or 0,
        served_batches=request.served_batches,
    )


def _onnxruntime_cuda(request: EngineRequest) -> Engine:
    from server.engines.onnxruntime import load_onnxruntime_engine

    return load_onnxruntime_engine(
        request.onnx_path,
        max_batch=request.max_batch,
        threads=request.threads or 0,
        providers=cuda(request.device_index, few_shapes=bool(request.served_batches)),
        served_batches=request.served_batches,
        cuda=_bound_to(request.device_index),
    )


def _bound_to(device_index: int) -> Cuda | None:
    """The GPU, to lay tensors out on; without pycuda ONNX Runtime does so itself, at the price of a copy."""
    if find_spec("pycuda") is None:
        return None
    from server.engines.cuda.pycuda_device import open_cuda

    return open_cuda(device_index)


def _onnxruntime_tensorrt(request: EngineRequest) -> Engine:
    from server.engines.graph_specs import read_graph_specs
    from server.engines.onnxruntime import load_onnxruntime_engine
    from server.engines.slots import largest_batch

    specs = read_graph_specs(request.onnx_path)
    largest = largest_batch(specs.inputs, request.max_batch, batched=specs.batched)
    return load_onnxruntime_engine(
        request.onnx_path,
        max_batch=request.max_batch,
        threads=request.threads or 0,
        providers=tensorrt(request.device_index, specs.inputs, largest, request.cache_dir),
        served_batches=request.served_batches,
    )


def _pytorch(request: EngineRequest) -> Engine:
    from server.engines.pytorch.engine import best_device, load_pytorch_engine

    return load_pytorch_engine(
        request.onnx_path,
        max_batch=request.max_batch,
        threads=request.threads,
        device=best_device(request.device_index),
        served_batches=request.served_batches,
    )


def _pytorch_compiled(request: EngineRequest) -> Engine:
    from server.engines.pytorch.engine import best_device, load_compiled_pytorch_engine

    return load_compiled_pytorch_engine(
        request.onnx_path,
        max_batch=request.max_batch,
        threads=request.threads,
        device=best_device(request.device_index),
        served_batches=request.served_batches,
    )


def _tensorrt(toolkit: str) -> Callable[[EngineRequest], Engine]:
    def load(request: EngineRequest) -> Engine:
        from server.engines.tensorrt.loading import load_tensorrt_engine
        from server.engines.tensorrt.plans import IfMissing

        return load_tensorrt_engine(
            request.onnx_path,
            toolkit=toolkit,
            max_batch=request.max_batch,
            served_batches=request.served_batches,
            device_index=request.device_index,
            cache_dir=request.cache_dir,
            if_missing=IfMissing.BUILD if request.build_missing else IfMissing.REFUSE,
        )

    return load


def _tensorflow(request: EngineRequest) -> Engine:
    from server.engines.tensorflow.engine import load_tensorflow_engine

    return load_tensorflow_engine(
        request.onnx_path,
        max_batch=request.max_batch,
        threads=request.threads,
        device_index=request.device_index,
        served_batches=request.served_batches,
    )


def _lacks_cuda() -> str:
    if not _has_driver():
        return "there is no NVIDIA driver here (libcuda): it runs on an NVIDIA GPU only"
    if find_spec("pycuda") is None:
        return "it needs the module pycuda: pip install 'boulton[gpu]'"
    return ""


def _has_driver() -> bool:
    """Whether the driver's library loads: a container may have it where only the loader looks."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _lacks_compiler() -> str:
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) or _pytorch_sees_gpu():
        return ""
    return f"torch.compile needs a C++ compiler, and there is no {compiler}: apt-get install g++, or set CXX"


def _pytorch_sees_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _lacks_provider(provider: str) -> Callable[[], str]:
    def obstacle() -> str:
        import onnxruntime

        offered = onnxruntime.get_available_providers()
        return "" if provider in offered else f"this onnxruntime has no {provider}: {INSTALL_GPU}"

    return obstacle


_TENSORFLOW = "pip install 'boulton[tensorflow]', or 'tensorflow[and-cuda]' for an NVIDIA GPU"
_TORCH = "pip install 'boulton[torch]' for the CPU, or the build of PyTorch for your GPU's driver"

ENGINE_KINDS: Mapping[str, EngineKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            EngineKind("onnxruntime", "cpu", ("onnxruntime",), "pip install 'boulton[cpu]'", _onnxruntime),
            EngineKind(
                "onnxruntime-cuda",
                "gpu",
                ("onnxruntime",),
                INSTALL_GPU,
                _onnxruntime_cuda,
                _lacks_provider(CUDA),
                exchanges=True,
            ),
            EngineKind(
                "onnxruntime-tensorrt",
                "gpu",
                ("onnxruntime",),
                INSTALL_GPU,
                _onnxruntime_tensorrt,
                _lacks_provider(TENSORRT),
            ),
            EngineKind("pytorch", "either", ("torch",), _TORCH, _pytorch),
            EngineKind("pytorch-compiled", "either", ("torch",), _TORCH, _pytorch_compiled, _lacks_compiler),
            EngineKind(
                "tensorrt",
                "gpu",
                ("tensorrt",),
                "pip install 'boulton[gpu]', on a machine with an NVIDIA GPU",
                _tensorrt("tensorrt"),
                _lacks_cuda,
                exchanges=True,
            ),
            EngineKind(
                "tensorrt-rtx",
                "gpu",
                ("tensorrt_rtx", "tensorrt_rtx_bindings"),
                "pip install 'boulton[rtx]'",
                _tensorrt("tensorrt-rtx"),
                _lacks_cuda,
                exchanges=True,
            ),
            EngineKind(
                "tensorflow", "either", ("tensorflow",), _TENSORFLOW, _tensorflow, for_comparison=True
            ),
        )
    }
)
