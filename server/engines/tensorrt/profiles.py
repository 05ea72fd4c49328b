"""Which batch sizes an engine is built for: one optimization profile each, with kernels for that size."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from server.engines.engine import TensorSpec
from server.engines.graph_specs import GraphSpecs
from server.errors import EngineError

MOST_PROFILES = 32
"""Each costs build time, and scratch memory on the GPU."""

LARGEST_BATCH = 1 << 16
"""Beyond it TensorRT's own sizes overflow."""


def check_batches(batches: Sequence[int], *, batched: bool) -> tuple[int, ...]:
    """Return the batch sizes, ascending.

    Raises:
        EngineError: none, too many, one twice or below 1; or some for a graph without a batch dimension.
    """
    given = ", ".join(map(str, batches))
    if not batched:
        if batches:
            raise EngineError(
                f"batches {given} were asked for, but the graph has a fixed first dimension: leave them out, "
                "or export it with a dynamic batch"
            )
        return ()
    allowed = f"1 to {MOST_PROFILES} different sizes of 1 to {LARGEST_BATCH} are allowed, e.g. 1,8,32"
    if not 1 <= len(set(batches)) == len(batches) <= MOST_PROFILES or not _in_range(batches):
        raise EngineError(f"batches are {given or 'none'}; {allowed}")
    return tuple(sorted(batches))


def _in_range(batches: Sequence[int]) -> bool:
    return min(batches) >= 1 and max(batches) <= LARGEST_BATCH


def profile_index(batches: Sequence[int], images: int) -> int:
    """Return which profile runs a batch; 0 for an engine without a batch dimension (no `batches`).

    Raises:
        EngineError: no profile is for that many images.
    """
    if not batches:
        return 0
    index = bisect_left(batches, images)
    if index == len(batches) or batches[index] != images:
        sizes = ", ".join(map(str, batches))
        raise EngineError(f"the engine was built for batches of {sizes}, got {images}")
    return index


def batch_shape(spec: TensorSpec, batches: Sequence[int], profile: int) -> tuple[int, ...]:
    """The shape of a whole tensor under a profile."""
    return (batches[profile], *spec.shape) if batches else spec.shape


def add_profiles(builder: Any, config: Any, specs: GraphSpecs, batches: Sequence[int]) -> None:  # noqa: ANN401
    """Tell TensorRT the sizes. Smallest, likeliest and largest are one: a profile serves one size.

    Raises:
        EngineError: TensorRT refuses one.
    """
    for index, batch in enumerate(batches):
        profile = builder.create_optimization_profile()
        for spec in specs.inputs:
            shape = batch_shape(spec, batches, index)
            profile.set_shape(spec.name, shape, shape, shape)
        # A bad shape is said nowhere else: set_shape is silent, and the answer is -1.
        if config.add_optimization_profile(profile) != index:
            shapes = ", ".join(
                f"{spec.name} {list(batch_shape(spec, batches, index))}" for spec in specs.inputs
            )
            raise EngineError(f"TensorRT refuses the profile for a batch of {batch} ({shapes})")
