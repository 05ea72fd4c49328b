"""Where PyTorch's batches lie: on the host, and on the GPU where there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from server.engines.engine import Array, TensorSpec
from server.engines.slots import InputSlots, make_buffers


class Slots:
    """A network's specs and the memory its batches lie in: on the host, and on the device.

    On the CPU both are one. For a GPU the host's part is pinned, so that a copy needs no staging.
    """

    def __init__(
        self,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        max_batch: int,
        device: torch.device,
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.max_batch = max_batch
        self.device = device
        self.on_gpu = device.type != "cpu"
        self._pages = [torch.from_numpy(buffer) for buffer in make_buffers(inputs, max_batch)]
        if self.on_gpu:
            self._pages = [tensor.pin_memory() for tensor in self._pages]
        self._there = [
            torch.zeros_like(tensor, device=device) if self.on_gpu else tensor for tensor in self._pages
        ]
        self.to_host: Callable[[Tensor], Array] = _downloaded if self.on_gpu else Tensor.numpy
        self.host = InputSlots([tensor.numpy() for tensor in self._pages], max_batch)
        # PyTorch takes microseconds to make a view, more where the network has emptied the caches.
        self._views: dict[int, tuple[Tensor, ...]] = {}

    def device_rows(self, images: int) -> tuple[Tensor, ...]:
        """The first rows as the network reads them; 0: everything, for a network without a batch."""
        rows = self._views.get(images)
        if rows is None:
            rows = self._views[images] = _rows(self._there, images)
        return rows

    def upload(self, images: int) -> None:
        """Queue a copy of the first rows to where the network reads them, on a GPU."""
        for target, source in zip(self.device_rows(images), _rows(self._pages, images), strict=True):
            target.copy_(source, non_blocking=True)


def _downloaded(tensor: Tensor) -> Array:
    array: Array = tensor.cpu().numpy()
    return array


def _rows(tensors: Sequence[Tensor], images: int) -> tuple[Tensor, ...]:
    return tuple(tensor[:images] for tensor in tensors) if images else tuple(tensors)
