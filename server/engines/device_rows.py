"""Tensors that lie in a client's memory on the GPU, and what a batch exchanges with such memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

from server.engines.engine import Array, Engine
from server.engines.overlapping import Overlapping
from server.engines.rows import Rows
from server.errors import EngineError


class Located(Protocol):
    """Memory on the GPU."""

    @property
    def address(self) -> int:
        """Where it begins."""


class SharedMemory(Located, Protocol):
    """A client's memory on the GPU. It stays mapped until everybody has let go of it.

    Counted, not left to the garbage collector: what a failed request looked at may live on in its error.
    """

    def hold(self) -> None:
        """Keep it mapped."""

    def release(self) -> None:
        """Let go, once for every `hold`."""


@dataclass(frozen=True, slots=True)
class DeviceRows(Rows[SharedMemory]):
    """Rows on the GPU; `memory` is held by whoever queues work on it."""

    @property
    def address(self) -> int:
        """Where it begins on the GPU."""
        return self.memory.address + self.offset


class Placed(NamedTuple):
    """Rows of a batch that lie elsewhere: of which input or output, and from which row of the batch on."""

    tensor: int
    first: int
    rows: DeviceRows


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a batch takes from clients' memory on the GPU, and puts there, rather than on the host.

    Args:
        sources: rows of inputs; what the slots hold for them is not looked at.
        targets: rows of outputs; what the engine returns for them means nothing.
    """

    sources: Sequence[Placed] = ()
    targets: Sequence[Placed] = ()


NOTHING = Exchange()


class Exchanging(Engine, Protocol):
    """An engine whose `run`, and `begin` where it has one, take an exchange besides."""

    def run(self, inputs: tuple[Array, ...], exchange: Exchange = NOTHING) -> tuple[Array, ...]:
        """Run one batch. Raises `EngineError`."""

    def begin(self, inputs: tuple[Array, ...], exchange: Exchange = NOTHING) -> None:
        """Begin one, where the engine overlaps. Raises `EngineError`."""


def exchanging(engine: Engine) -> Exchanging | None:
    """Return the engine where it says `exchanges`, else None."""
    return cast("Exchanging", engine) if getattr(engine, "exchanges", False) else None


def run_exchanging(engine: Engine, inputs: tuple[Array, ...], exchange: Exchange) -> tuple[Array, ...]:
    """Run a batch with an exchange, where there is anything to exchange. Raises `EngineError`."""
    if exchange is NOTHING:
        return engine.run(inputs)
    return _able(engine).run(inputs, exchange)


def begin_exchanging(engine: Overlapping, inputs: tuple[Array, ...], exchange: Exchange) -> None:
    """Begin a batch likewise. Raises `EngineError`."""
    if exchange is NOTHING:
        engine.begin(inputs)
    else:
        _able(engine).begin(inputs, exchange)


def _able(engine: Engine) -> Exchanging:
    able = exchanging(engine)
    if able is None:
        raise EngineError(f"{engine.platform} takes no tensors that lie on a GPU")
    return able
