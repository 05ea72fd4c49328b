"""From the network's arrays to the bytes of the answer: tensors, classes, shared memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from server.engines.engine import Array
from server.errors import InvalidArgument
from server.inference.inputs import Regions
from server.inference.plan import InferPlan, OutputPlan
from server.wire.tensors import classify, pack_bytes

Raw = bytes | memoryview


def open_regions(plan: InferPlan, regions: Regions) -> tuple[memoryview | None, ...]:
    """Find the shared memory of every output before anything is computed for nothing."""
    return tuple(None if output.region is None else regions.view(output.region) for output in plan.outputs)


def raw_outputs(plan: InferPlan, arrays: Sequence[Array], labels: tuple[str, ...]) -> list[Raw]:
    """Return one entry per output, in order."""
    return [_raw(output, arrays[output.index], plan.images, labels) for output in plan.outputs]


def place(plan: InferPlan, raw: Sequence[Raw], regions: Sequence[memoryview | None]) -> list[Raw]:
    """Write to shared memory what belongs there, and leave it empty in the answer."""
    return [_placed(*one) for one in zip(plan.outputs, raw, regions, strict=True)]


def _raw(output: OutputPlan, array: Array, images: int, labels: tuple[str, ...]) -> Raw:
    if output.classes == 0:
        return np.ascontiguousarray(array).data.cast("B")
    return pack_bytes(classify(array.reshape(images, -1), output.classes, labels))


def _placed(output: OutputPlan, raw: Raw, region: memoryview | None) -> Raw:
    if region is None:
        return raw
    if len(raw) > len(region):
        needed = f"needs {len(raw)} bytes of shared memory, got {len(region)}"
        raise InvalidArgument(f"output '{output.name}' {needed}: register a larger region")
    region[: len(raw)] = raw
    return b""
