"""ONNX Runtime's execution providers as values: their options, and no silent way back to the CPU.

ONNX Runtime treats a provider as a wish: where a library is missing, or an operator has no kernel there, it
goes on with the next provider, and says so in a log at best. Such figures would carry the wrong name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from server.engines.engine import TensorSpec
from server.errors import EngineError

PLACEMENT_KEY = "session.record_ep_graph_assignment_info"
"""The session's setting that makes it remember which provider took which node."""

_CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

# Where a CNN spends its time: any of these outside the provider asked for makes its figures meaningless.
_HEAVY = frozenset(
    {
        "Conv",
        "ConvInteger",
        "ConvTranspose",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "Gemm",
        "MatMul",
        "MatMulInteger",
        "NhwcConv",
        "NhwcFusedConv",
        "QLinearConv",
        "QLinearMatMul",
    }
)
_NAMED_NODES = 3

_Chain = tuple[tuple[str, dict[str, str]], ...]


class PlacedNode(Protocol):
    """A node of the graph as ONNX Runtime reports it."""

    name: str
    op_type: str


class Placement(Protocol):
    """Nodes that one provider took."""

    ep_name: str

    def get_nodes(self) -> Sequence[PlacedNode]:
        """The nodes."""


@dataclass(frozen=True, slots=True)
class Providers:
    """What a session runs on.

    Args:
        platform: the engine's name in metadata.
        chain: providers in order of preference with their options, as ONNX Runtime takes them.
        install: what to do when the first one is missing.
        any_thread: whether batches may come from any thread; the CUDA provider keeps handles and workspaces
            for each thread that ever called it, so there one thread must do.
        loads_first: a module whose import loads libraries that the provider needs and does not look for where
            Python packages keep them; a system may have them elsewhere, so that it need not be there.
    """

    platform: str
    chain: _Chain
    install: str
    any_thread: bool
    loads_first: str = ""

    @property
    def wanted(self) -> str:
        """The provider that has to do the work."""
        return self.chain[0][0]

    @property
    def on_gpu(self) -> bool:
        """Whether the work is to be done on a GPU."""
        return self.wanted != _CPU

    @property
    def device(self) -> tuple[str, int]:
        """Where it lays tensors out: the kind and the number of the device."""
        kind = "cuda" if self.on_gpu else "cpu"
        return kind, int(self.chain[0][1].get("device_id", 0))

    def check_offered(self, offered: Sequence[str]) -> None:
        """Raise EngineError unless the installed ONNX Runtime was built with the provider."""
        if self.wanted not in offered:
            raise EngineError(
                f"this ONNX Runtime has no {self.wanted}, only {', '.join(offered)}: {self.install}"
            )


CPU = Providers("onnxruntime_onnx", ((_CPU, {}),), "pip install 'boulton[cpu]'", any_thread=True)

INSTALL_GPU = (
    "pip uninstall onnxruntime, then pip install 'boulton[gpu]' 'onnxruntime-gpu[cuda,cudnn]' "
    "(onnxruntime and onnxruntime-gpu install the same module: only one may be present)"
)


def cuda(device_index: int, *, few_shapes: bool) -> Providers:
    """ONNX Runtime's CUDA provider.

    Args:
        device_index: which GPU, counted as CUDA counts.
        few_shapes: only a few batch sizes ever run. Then every convolution tries all its algorithms at the
            first batch of a size; otherwise that would hold up a batch at each of many sizes.
    """
    return Providers(
        "onnxruntime_cuda",
        (_cuda(device_index, few_shapes=few_shapes), (_CPU, {})),
        INSTALL_GPU,
        any_thread=False,
    )


def tensorrt(
    device_index: int, inputs: Sequence[TensorSpec], max_batch: int, cache_dir: Path | None
) -> Providers:
    """ONNX Runtime's TensorRT provider, with CUDA behind it for what TensorRT lacks.

    One optimization profile for batches of 1 to `max_batch`, tuned for the largest: smaller ones run slower
    than under a profile of their own. The provider takes several (an input named more than once) and builds
    them, but its execution context stays with the first, so that batches of the others fail at run time
    (github.com/microsoft/onnxruntime/pull/31624, open in 2026-09, would switch). The engine `tensorrt` has
    one for each size. The precision is the ONNX file's: no builder flag is set.

    Args:
        device_index: which GPU, counted as CUDA counts.
        inputs: the network's inputs.
        max_batch: most images; 0 for a network without a batch dimension, whose shapes need no profile.
        cache_dir: where engines and timings are kept between starts; None: they are built at every start.
    """
    options = {"device_id": str(device_index)}
    if max_batch:
        for name, images in (("min", 1), ("opt", max_batch), ("max", max_batch)):
            options[f"trt_profile_{name}_shapes"] = _shapes(inputs, images)
    if cache_dir is not None:
        options |= {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(cache_dir),
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(cache_dir),
        }
    chain: _Chain = ((TENSORRT, options), _cuda(device_index, few_shapes=False), (_CPU, {}))
    install = f"{INSTALL_GPU}; the provider also needs TensorRT's libraries: pip install tensorrt"
    return Providers("onnxruntime_tensorrt", chain, install, any_thread=False, loads_first="tensorrt")


def refuse_fallback(
    path: Path, providers: Providers, active: Sequence[str], placements: Sequence[Placement]
) -> None:
    """Raise EngineError unless the wanted provider is active and took everything that costs time.

    Args:
        path: the ONNX file, for the message.
        providers: what was asked for.
        active: providers that the session ended up with.
        placements: which of them took which nodes.
    """
    if providers.wanted not in active:
        raise EngineError(
            f"ONNX Runtime could not start {providers.wanted} and would have run {path} on "
            f"{', '.join(active)}; a library is missing or does not fit the driver, its log says which: "
            f"{providers.install}"
        )
    elsewhere = [
        f"{node.op_type} '{node.name}' ({placement.ep_name})"
        for placement in placements
        if placement.ep_name != providers.wanted
        for node in placement.get_nodes()
        if node.op_type in _HEAVY
    ]
    if elsewhere or all(placement.ep_name != providers.wanted for placement in placements):
        raise EngineError(_not_taken(path, providers, elsewhere))


def _not_taken(path: Path, providers: Providers, elsewhere: Sequence[str]) -> str:
    named = ", ".join(elsewhere[:_NAMED_NODES]) or "all of it"
    more = f" and {len(elsewhere) - _NAMED_NODES} more" if len(elsewhere) > _NAMED_NODES else ""
    return (
        f"{providers.wanted} has no kernels for parts of {path} that cost time: {named}{more} would run "
        "elsewhere; export the model in another precision, or choose another engine"
    )


def _cuda(device_index: int, *, few_shapes: bool) -> tuple[str, dict[str, str]]:
    search = "EXHAUSTIVE" if few_shapes else "HEURISTIC"
    return CUDA, {"device_id": str(device_index), "cudnn_conv_algo_search": search}


def _shapes(inputs: Sequence[TensorSpec], images: int) -> str:
    return ",".join(f"{spec.name}:{'x'.join(map(str, (images, *spec.shape)))}" for spec in inputs)
