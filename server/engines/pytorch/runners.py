"""What runs a batch of one size: a compiled module, and on a GPU its launches recorded as one CUDA graph."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, fx

Runner = Callable[..., tuple[Tensor, ...]]

_LOG = logging.getLogger(__name__)

_WARM_UPS = 3  # cuDNN and the compiler choose kernels in the first runs; recording must not see that


@dataclass(frozen=True, slots=True)
class Eager:
    """Runs a module without what training would need."""

    module: Runner

    def __call__(self, *rows: Tensor) -> tuple[Tensor, ...]:
        """Run a batch."""
        with torch.inference_mode():
            return self.module(*rows)


def compiled(module: fx.GraphModule, rows: tuple[Tensor, ...], backend: str) -> Runner:
    """Compile for exactly these rows, and run once so that nothing is left for the first batch.

    The module's code is copied, its weights are shared: PyTorch bounds the compilations of one piece of code,
    and there may be more batch sizes than that.

    Args:
        module: the network.
        rows: where its input lies; on a GPU it must stay there.
        backend: PyTorch's compiler.
    """
    made = Eager(torch.compile(fx.GraphModule(module, module.graph), backend=backend, dynamic=False))
    made(*rows)
    return recorded_where_it_can_be(made, rows) if rows[0].is_cuda else made


def recorded_where_it_can_be(run: Runner, rows: tuple[Tensor, ...]) -> Runner:
    """Some networks cannot be recorded, for waiting for the GPU in between: they run as they are."""
    try:
        return recorded(run, rows)
    except RuntimeError as error:
        _LOG.warning("this network runs without CUDA graphs: %s", error)
        run(*rows)  # raises where the GPU is lost rather than the recording refused
        return run


def recorded(run: Runner, rows: tuple[Tensor, ...]) -> Runner:
    """Record a run's launches and play them back: small kernels then no longer wait for the CPU.

    What is returned reads `rows` wherever it is called with, and writes the same outputs each time.
    """
    graph = torch.cuda.CUDAGraph()
    aside = torch.cuda.Stream(rows[0].device)
    aside.wait_stream(torch.cuda.current_stream(rows[0].device))
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UPS):
            run(*rows)
        aside.synchronize()
        with torch.cuda.graph(graph, stream=aside):
            outputs = run(*rows)

    def play(*_rows: Tensor) -> tuple[Tensor, ...]:
        graph.replay()
        return outputs

    return play
