"""Engines that take the next batch while one is computed, so that its upload costs no time."""

from __future__ import annotations

from typing import Protocol, cast

from server.engines.engine import Array, Engine

UNDER_WAY = 2
"""Batches that such an engine takes at once: one is computed, one is uploaded."""


class Overlapping(Engine, Protocol):
    """An engine whose `run` is also to be had in two halves. `input_buffers` change with every `begin`."""

    def begin(self, inputs: tuple[Array, ...]) -> None:
        """Queue a batch and return at once. Raises `EngineError`; nothing is under way for it then."""

    def finish(self) -> tuple[Array, ...]:
        """Wait for the batch begun first and return its answers. Raises `EngineError`; it is over then."""


def overlapping(engine: Engine) -> Overlapping | None:
    """Return the engine where it says `overlaps`, else None."""
    return cast("Overlapping", engine) if getattr(engine, "overlaps", False) else None
