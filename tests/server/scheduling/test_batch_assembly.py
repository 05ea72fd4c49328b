from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from optimizer.batching import Request, Slice
from server.engines.engine import Array, Engine, TensorSpec
from server.errors import EngineError
from server.scheduling import batch_assembly
from server.scheduling.batch_assembly import Call, assemble, split, still_wanted

if TYPE_CHECKING:
    from server.scheduling.batch_assembly import Piece


class Buffers:
    """As much of an engine as assembly looks at: two inputs, `a` FP32 [3] and `b` UINT8 []."""

    inputs = (TensorSpec("a", "FP32", (3,)), TensorSpec("b", "UINT8", ()))

    def __init__(self, max_batch: int = 6, *, reads_foreign_memory: bool = True) -> None:
        self.max_batch = max_batch
        self.reads_foreign_memory = reads_foreign_memory
        self.any_thread = False
        self.input_buffers: tuple[Array, ...] = (
            np.full((max_batch, 3), -1, np.float32),
            np.full(max_batch, 255, np.uint8),
        )

    def slots(self, images: int) -> tuple[Array, ...]:
        return tuple(buffer[:images] for buffer in self.input_buffers)


def engine(**settings: bool) -> Engine:
    return cast("Engine", Buffers(**settings))


def request(*values: int) -> Request[Call]:
    numbers = np.array(values)
    inputs = (np.repeat(numbers, 3).reshape(-1, 3).astype(np.float32), numbers.astype(np.uint8))
    return Request(Call(inputs, len(values), None), len(values), 0, 0.0)  # type: ignore[arg-type]


def piece(whole: Request[Call], start: int = 0, images: int | None = None) -> Piece:
    return Slice(whole, start, whole.images if images is None else images)


@pytest.fixture(params=[1 << 20, 0], ids=["small copies", "large copies"], autouse=True)
def threshold(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_assembly, "_LARGE_COPY_BYTES", request.param)


def test_rows_of_several_requests_are_gathered_in_order() -> None:
    target = engine()
    a, b = assemble(target, [piece(request(1, 2)), piece(request(3, 4, 5), 1, 2)])
    assert b.tolist() == [1, 2, 4, 5]
    assert a.tolist() == [[v, v, v] for v in (1, 2, 4, 5)]
    assert np.shares_memory(a, target.input_buffers[0])
    assert target.input_buffers[1].tolist() == [1, 2, 4, 5, 255, 255]


def test_one_piece_is_passed_on_where_it_is() -> None:
    whole = request(1, 2, 3)
    assert assemble(engine(), [piece(whole)]) is whole.payload.inputs
    part = assemble(engine(), [piece(whole, 1, 2)])
    assert part[1].tolist() == [2, 3]
    assert np.shares_memory(part[0], whole.payload.inputs[0])


def test_one_piece_is_copied_for_an_engine_that_reads_only_its_own_buffers() -> None:
    target = engine(reads_foreign_memory=False)
    a, b = assemble(target, [piece(request(7, 8))])
    assert b.tolist() == [7, 8]
    assert np.shares_memory(a, target.input_buffers[0])


def test_rows_at_odd_addresses() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    odd = np.frombuffer(b"x" + values.tobytes(), np.float32, offset=1).reshape(2, 3)
    call = Call((odd, np.zeros(2, np.uint8)), 2, None)  # type: ignore[arg-type]
    whole: Request[Call] = Request(call, 2, 0, 0.0)
    a, _ = assemble(engine(), [piece(whole), piece(request(9))])
    assert a.tolist() == [*values.tolist(), [9, 9, 9]]
    alone, _ = assemble(engine(), [piece(whole)])
    assert alone.flags.aligned
    assert np.array_equal(alone, values)


@pytest.mark.parametrize(
    "inputs",
    [
        (np.zeros((1, 4), np.float32), np.zeros(1, np.uint8)),
        (np.zeros((1, 3), np.float64), np.zeros(1, np.uint8)),
        (np.zeros((1, 3), np.float32), np.zeros(2, np.uint8)),
        (np.zeros((3,), np.float32), np.zeros(1, np.uint8)),
    ],
)
def test_rows_that_do_not_fit_are_refused(inputs: tuple[Array, ...]) -> None:
    odd: Request[Call] = Request(Call(inputs, 1, None), 1, 0, 0.0)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="rows must be"):
        assemble(engine(), [piece(request(1)), piece(odd)])


def test_outputs_are_split_as_views_in_order() -> None:
    outputs = (np.arange(5), np.arange(10).reshape(5, 2))
    parts = list(split(outputs, [piece(request(1, 2)), piece(request(3)), piece(request(4, 5))]))
    assert [part[0].tolist() for part in parts] == [[0, 1], [2], [3, 4]]
    assert all(np.shares_memory(part[1], outputs[1]) for part in parts)


def test_settled_requests_are_left_out() -> None:
    first, second = request(1), request(2)
    first.payload.settled = True
    assert still_wanted([piece(first), piece(second)]) == (piece(second),)
