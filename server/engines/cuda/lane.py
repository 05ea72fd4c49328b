"""Where one batch lies on its way through the GPU. With two lanes, one fills while the other is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from server.engines.cuda.device import Cuda, DeviceMemory, Event, Stream
from server.engines.device_rows import Placed
from server.engines.engine import Array, TensorSpec
from server.engines.slots import InputSlots


@dataclass(frozen=True, slots=True)
class Lane:
    """Buffers for one batch of any size up to the largest, and the marks that say how far it is.

    Args:
        slots: page-locked, one per input, `[largest, *shape]`: what requests are copied into.
        host_outputs: likewise, one per output.
        device_inputs: on the GPU, one per input.
        device_outputs: on the GPU, one per output.
        addresses: of all tensors on the GPU, by name.
        uploaded: the inputs are on the GPU.
        done: the outputs are back.
    """

    slots: InputSlots
    host_outputs: tuple[Array, ...]
    device_inputs: tuple[DeviceMemory, ...]
    device_outputs: tuple[DeviceMemory, ...]
    addresses: Mapping[str, int]
    uploaded: Event
    done: Event

    def upload(self, cuda: Cuda, rows: int | None, stream: Stream, sources: Sequence[Placed] = ()) -> None:
        """Queue the copy of the first rows to the GPU, of everything without a batch dimension (None).

        Rows among `sources` come from where they lie on the GPU.
        """
        for index, (target, host) in enumerate(zip(self.device_inputs, self.slots.buffers, strict=True)):
            placed = [one for one in sources if one.tensor == index]
            for first, part in _outside(host, rows, placed):
                cuda.upload(_Row(target, first, host), part, stream)
            for one in placed:
                cuda.copy(_Row(target, one.first, host), one.rows, one.rows.nbytes, stream)
        self.uploaded.record(stream)

    def download(self, cuda: Cuda, rows: int | None, stream: Stream, targets: Sequence[Placed] = ()) -> None:
        """Queue the copy back; rows among `targets` go where they belong on the GPU."""
        for index, (source, host) in enumerate(zip(self.device_outputs, self.host_outputs, strict=True)):
            placed = [one for one in targets if one.tensor == index]
            for first, part in _outside(host, rows, placed):
                cuda.download(part, _Row(source, first, host), stream)
            for one in placed:
                cuda.copy(one.rows, _Row(source, one.first, host), one.rows.nbytes, stream)
        self.done.record(stream)

    def outputs(self, rows: int | None) -> tuple[Array, ...]:
        """Copies of what came back: the lane is used again."""
        return tuple(_first(array, rows).copy() for array in self.host_outputs)


def make_lane(
    cuda: Cuda, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], max_batch: int, exits: ExitStack
) -> Lane:
    """Reserve a lane; `exits` frees what lies on the GPU."""

    def on_device(spec: TensorSpec) -> DeviceMemory:
        memory = cuda.device_memory(max(1, spec.item_bytes) * max(1, max_batch))
        exits.callback(memory.free)
        return memory

    rows = (max_batch,) if max_batch else ()
    device_inputs, device_outputs = tuple(map(on_device, inputs)), tuple(map(on_device, outputs))
    named = zip((*inputs, *outputs), (*device_inputs, *device_outputs), strict=True)
    return Lane(
        slots=InputSlots([cuda.host_array(rows + spec.shape, spec.dtype) for spec in inputs], max_batch),
        host_outputs=tuple(cuda.host_array(rows + spec.shape, spec.dtype) for spec in outputs),
        device_inputs=device_inputs,
        device_outputs=device_outputs,
        addresses={spec.name: memory.address for spec, memory in named},
        uploaded=cuda.event(),
        done=cuda.event(),
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """Where a row begins in memory on the GPU that is laid out as an array on the host is."""

    memory: DeviceMemory
    row: int
    like: Array

    @property
    def address(self) -> int:
        return self.memory.address + self.row * (self.like.strides[0] if self.row else 0)


def _outside(array: Array, rows: int | None, placed: Sequence[Placed]) -> list[tuple[int, Array]]:
    """The parts of the first rows that are not `placed` elsewhere, each with its first row."""
    if rows is None:
        return [] if placed else [(0, array)]
    taken = sorted((one.first, one.first + one.rows.shape[0]) for one in placed)
    begins = [0, *(end for _, end in taken)]
    ends = [*(first for first, _ in taken), rows]
    return [(begin, array[begin:end]) for begin, end in zip(begins, ends, strict=True) if begin < end]


def _first(array: Array, rows: int | None) -> Array:
    return array if rows is None else array[:rows]
