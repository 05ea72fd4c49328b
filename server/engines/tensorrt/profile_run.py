"""One optimization profile: one batch size, its execution context, and its work as CUDA graphs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from server.engines.cuda.device import CaptureFailed, Cuda, Graph, Stream
from server.errors import EngineError

_LOG = logging.getLogger(__name__)

MOST_GRAPHS = 4
"""One for each lane of buffers; more only if buffers were to change."""


class ProfileRun:
    """Queues the network's work for one batch size.

    Args:
        cuda: the GPU, bound in all calls.
        context: TensorRT's execution context, used here only.
        index: the profile's index in the plan.
        shapes: of the inputs by name, whole.
        stream: where the work is queued.
        explain: what TensorRT last complained of.
        graphs: whether to capture graphs; False where layers are timed one by one.

    Raises:
        EngineError: TensorRT refuses the profile or a shape.
    """

    def __init__(
        self,
        cuda: Cuda,
        context: Any,  # noqa: ANN401  # the module has no types of its own
        index: int,
        shapes: Mapping[str, tuple[int, ...]],
        stream: Stream,
        explain: Callable[[], str],
        *,
        graphs: bool = True,
    ) -> None:
        self._cuda = cuda
        self._context = context
        self._stream = stream
        self._explain = explain
        self._capturing = graphs
        self._bound: Mapping[str, int] = {}
        self._graphs: dict[tuple[tuple[str, int], ...], Graph] = {}
        self._check(context.set_optimization_profile_async(index, stream.handle), f"profile {index}")
        for name, shape in shapes.items():
            self._check(context.set_input_shape(name, shape), f"shape {list(shape)} of input '{name}'")

    @property
    def graphs(self) -> int:
        """How many graphs there are."""
        return len(self._graphs)

    def enqueue(self, addresses: Mapping[str, int]) -> None:
        """Queue the work on tensors at these addresses.

        At new addresses it is queued as it is, which also lets TensorRT prepare what a capture must not, and
        captured; after that the graph is launched.

        Raises:
            EngineError: TensorRT or the driver refuses, and why.
        """
        key = tuple(sorted(addresses.items()))
        graph = self._graphs.get(key)
        if graph is not None:
            graph.launch(self._stream)
            return
        self._bind(addresses)
        self._execute()
        if self._capturing:
            self._capture(key)

    def close(self) -> None:
        """Give the graphs and the context back. Idempotent."""
        while self._graphs:
            self._graphs.popitem()[1].close()
        self._context = None

    def _bind(self, addresses: Mapping[str, int]) -> None:
        if addresses != self._bound:
            self._bound = {}
            for name, address in addresses.items():
                self._check(self._context.set_tensor_address(name, address), f"the address of '{name}'")
            self._bound = dict(addresses)

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise EngineError(f"TensorRT failed: {self._explain()}")

    def _capture(self, key: tuple[tuple[str, int], ...]) -> None:
        if len(self._graphs) >= MOST_GRAPHS:
            self._graphs.pop(next(iter(self._graphs))).close()
        try:
            self._check_capturable()
            self._graphs[key] = self._cuda.capture(self._stream, self._execute)
        except EngineError as error:
            if not isinstance(error, CaptureFailed) and not self._cuda.alive():
                raise
            self._capturing = False
            _LOG.warning("this network runs without CUDA graphs: %s", error)

    def _check_capturable(self) -> None:
        """TensorRT-RTX can tell, once it has the shapes and addresses; TensorRT does not."""
        tell = getattr(self._context, "is_stream_capturable", None)
        if tell is not None and not tell(self._stream.handle):
            raise CaptureFailed(f"TensorRT says that its work cannot be captured: {self._explain()}")

    def _check(self, accepted: bool, what: str) -> None:
        if not accepted:
            raise EngineError(f"TensorRT refuses {what}: {self._explain()}")
