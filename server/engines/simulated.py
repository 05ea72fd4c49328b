"""An engine that computes nothing: it takes the time that a simulated GPU would take, and answers zeros."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import numpy as np

from server.engines.engine import Array, TensorSpec
from server.engines.slots import InputSlots, input_check
from server.errors import EngineError


class Executor(Protocol):
    """Whoever knows how long a batch takes."""

    def execute(self, model: str, batch: int) -> float:
        """Start a batch now: book its energy and return the seconds it takes.

        Raises KeyError for a model that is not known.
        """


class SimulatedEngine:
    """Implements `Engine` on a simulated GPU.

    Args:
        gpu: takes the modelled time and books the modelled energy.
        model_name: the network's name in the GPU's profile.
        inputs: specs of the inputs in order.
        outputs: specs of the outputs in order.
        max_batch: largest batch in images; 0 for a network without a batch dimension.
        sleep: how the modelled seconds pass.
    """

    def __init__(
        self,
        gpu: Executor,
        model_name: str,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        max_batch: int,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._gpu = gpu
        self._model_name = model_name
        self._inputs = inputs
        self._outputs = outputs
        self._max_batch = max_batch
        self._check = input_check(inputs, max_batch)
        self._sleep = sleep
        buffers = [np.zeros(self._shape(spec, max(1, max_batch)), spec.dtype) for spec in inputs]
        self._slots = InputSlots(buffers, max_batch)
        self._closed = False

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs in graph order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs in graph order."""
        return self._outputs

    @property
    def max_batch(self) -> int:
        """Largest batch in images; 0 when the network has no batch dimension."""
        return self._max_batch

    @property
    def served_batches(self) -> tuple[int, ...]:
        """Always (): any batch from 1 to `max_batch`."""
        return ()

    @property
    def padded_images(self) -> int:
        """Rows computed in vain: always 0."""
        return 0

    @property
    def platform(self) -> str:
        """Always `boulton_simulated`."""
        return "boulton_simulated"

    @property
    def simulated(self) -> bool:
        """Whether times and answers are modelled: always."""
        return True

    @property
    def reads_foreign_memory(self) -> bool:
        """Whether any array will do: always, as none is read."""
        return True

    @property
    def any_thread(self) -> bool:
        """Whether `run` may be called from any thread: no, it sleeps, which would hold up an event loop."""
        return False

    @property
    def input_buffers(self) -> tuple[Array, ...]:
        """Preallocated inputs, one per input: row i is slot i."""
        return self._slots.buffers

    def slots(self, images: int) -> tuple[Array, ...]:
        """The first of them, the same tuple each time."""
        return self._slots.first(images)

    def run(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Let the modelled time of one batch pass and return zeros.

        Raises:
            EngineError: the engine is closed, the input is no batch for it, or the profile lacks the model.
        """
        if self._closed:
            raise EngineError(f"simulated {self._model_name}: the engine is closed")
        self._check(inputs)
        batch = len(inputs[0]) if self._max_batch else 1
        try:
            seconds = self._gpu.execute(self._model_name, batch)
        except KeyError as error:
            raise EngineError(str(error.args[0])) from error
        self._sleep(seconds)
        return tuple(np.zeros(self._shape(spec, batch), spec.dtype) for spec in self._outputs)

    def close(self) -> None:
        """Refuse further batches. Idempotent."""
        self._closed = True

    def _shape(self, spec: TensorSpec, batch: int) -> tuple[int, ...]:
        return (batch, *spec.shape) if self._max_batch else spec.shape
