"""From the network's arrays to the bytes of the answer: tensors, classes, shared memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from server.engines.device_rows import DeviceRows
from server.engines.engine import NUMPY_DTYPES, Array
from server.errors import InvalidArgument
from server.inference.inputs import Regions
from server.inference.plan import InferPlan, OutputPlan
from server.wire.shared_memory import SharedBytes
from server.wire.tensors import classify, pack_bytes

Raw = bytes | memoryview
Place = SharedBytes | DeviceRows | None
"""Where an output goes: shared memory on the host or on the GPU, or the answer (None)."""


def open_regions(plan: InferPlan, regions: Regions) -> tuple[Place, ...]:
    """Find the shared memory of every output before anything is computed for nothing."""
    return tuple([_open(output, regions) for output in plan.outputs])


def device_targets(plan: InferPlan, places: Sequence[Place], count: int) -> tuple[DeviceRows | None, ...]:
    """Return where on the GPU each of the network's `count` outputs belongs; () when none does."""
    targets: list[DeviceRows | None] = [None] * count
    for output, place in zip(plan.outputs, places, strict=True):
        if isinstance(place, DeviceRows):
            targets[output.index] = place
    return tuple(targets) if any(target is not None for target in targets) else ()


def raw_outputs(plan: InferPlan, arrays: Sequence[Array], labels: tuple[str, ...]) -> list[Raw]:
    """Return one entry per output, in order."""
    return [_raw(output, arrays[output.index], plan.images, labels) for output in plan.outputs]


def place(plan: InferPlan, raw: Sequence[Raw], regions: Sequence[Place]) -> list[Raw]:
    """Write to shared memory what belongs there, and leave it empty in the answer."""
    return [_placed(*one) for one in zip(plan.outputs, raw, regions, strict=True)]


def _raw(output: OutputPlan, array: Array, images: int, labels: tuple[str, ...]) -> Raw:
    if output.classes == 0:
        return np.ascontiguousarray(array).data.cast("B")
    return pack_bytes(classify(array.reshape(images, -1), output.classes, labels))


def _open(output: OutputPlan, regions: Regions) -> Place:
    if output.region is None:
        return None
    place = regions.view(output.region)
    if not isinstance(place, DeviceRows):
        return place
    if output.classes:
        raise InvalidArgument(
            f"output '{output.name}' is to be classified, and classes cannot be put into CUDA shared memory: "
            "leave the region out"
        )
    return place.viewed(output.shape, NUMPY_DTYPES[output.datatype])


def _placed(output: OutputPlan, raw: Raw, region: Place) -> Raw:
    if region is None:
        return raw
    if isinstance(region, DeviceRows):  # the engine has put it there
        return b""
    if len(raw) > region.nbytes:
        needed = f"needs {len(raw)} bytes of shared memory, got {region.nbytes}"
        raise InvalidArgument(f"output '{output.name}' {needed}: register a larger region")
    region.memory.write(region.offset, raw)
    return b""
