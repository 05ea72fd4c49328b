"""What steps are charged for, above all poolings."""

from __future__ import annotations

import numpy as np
import pytest

from optimizer.layers.costs import causes_of, charged, pixels_inside
from optimizer.layers.features import NAMES, FeatureTable
from optimizer.layers.fitting import _roofline
from optimizer.layers.fusion import Kind


def pooling(**values: float) -> FeatureTable:
    row = np.ones((1, len(NAMES)))
    for name, value in values.items():
        row[0, NAMES.index(name)] = value
    return FeatureTable((Kind.POOLING,), ("pool",), row)


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding"), [(28, 3, 1, 1), (13, 3, 2, 0), (14, 5, 3, 2)]
)
@pytest.mark.parametrize("over_the_edge", [0, 1])
def test_windows_see_only_what_is_inside(
    side: int, kernel: int, stride: int, padding: int, over_the_edge: int
) -> None:
    answers = (side + 2 * padding - kernel) // stride + 1 + over_the_edge
    starts = np.arange(answers) * stride - padding
    along = sum(0 <= start + offset < side for start in starts for offset in range(kernel))
    table = pooling(
        in_height=side,
        in_width=7,
        out_height=answers,
        out_width=7,
        kernel_height=kernel,
        kernel_width=1,
        stride=stride,
        padding=padding,
    )
    assert pixels_inside(table)[0] == along * sum(0 <= place * stride - padding < 7 for place in range(7))


def test_a_pooling_is_charged_by_the_code_that_runs_it() -> None:
    shape = {"in_height": 4.0, "in_width": 4.0, "out_height": 2.0, "out_width": 2.0, "stride": 2.0}
    window = {"kernel_height": 2.0, "kernel_width": 2.0, "padding": 0.0, "out_channels": 20.0}
    charged = {
        code: set(np.flatnonzero(causes_of(pooling(**shape, **window, **flags), "pooling")[0, 1:9]).tolist())
        for code, flags in {
            "blocked": {"blocked": 1.0, "scalar": 0.0},
            "scalar": {"blocked": 0.0, "scalar": 1.0},
            "plain": {"blocked": 0.0, "scalar": 0.0},
        }.items()
    }
    assert charged == {"blocked": {0, 1, 2}, "scalar": {3}, "plain": {4, 5, 6}}
    in_blocks = causes_of(pooling(**shape, **window, blocked=1.0, scalar=0.0), "pooling")
    assert in_blocks[0, 1] == 2 * 16  # two blocks of channels, all sixteen pixels


def test_large_images_are_charged_more_a_byte_and_only_in_blocks() -> None:
    def prices_of(size: float, blocked: float) -> float:
        table = pooling(input_bytes=size, blocked=blocked, scalar=0.0)
        own = causes_of(table, "pooling")[:, 21:26]
        return float(own.sum() / size)

    assert prices_of(2.0**17, 1.0) == 0.0
    assert prices_of(2.0**19, 1.0) < prices_of(2.0**23, 1.0)
    assert prices_of(2.0**23, 0.0) == 0.0


def test_prices_that_were_fitted_before_a_cause_was_known_leave_it_out() -> None:
    table = pooling(input_bytes=2.0**23, blocked=1.0, scalar=0.0)
    causes = causes_of(table, "pooling")
    older = np.ones((1, 21))
    assert charged(table, "pooling", older)[0, 0] == pytest.approx(causes[0, :21].sum())
    assert charged(table, "pooling", older)[0, 0] < charged(table, "pooling", np.ones((1, causes.shape[1])))


def test_what_was_made_long_ago_costs_more_and_only_in_blocks() -> None:
    def late(operations: float, blocked: float) -> np.ndarray:
        size = {"input_bytes": 2.0**18, "blocked": blocked, "scalar": 0.0}
        return causes_of(pooling(since_operations=operations, **size), "pooling")[0, 26:34]

    assert not late(1e7, 1.0).any()
    assert (late(3e9, 1.0) > late(5e8, 1.0)).all()
    assert not late(3e9, 0.0).any()


@pytest.mark.parametrize(
    ("kind", "more"), [(Kind.POOLING, 3), (Kind.CONVOLUTION, 2), (Kind.FULLY_CONNECTED, 0)]
)
def test_answers_in_new_memory_cost_more(kind: Kind, more: int) -> None:
    new, old = (
        causes_of(pooling(fresh_bytes=fresh, output_bytes=64.0), kind.value)[0] for fresh in (32.0, 0.0)
    )
    assert np.flatnonzero(new != old).tolist() == list(range(len(new) - more, len(new)))
    assert (new >= old).all()


def test_what_only_one_row_has_a_little_of_is_not_priced() -> None:
    causes = np.column_stack([np.ones(9), [*np.zeros(8), 1e-6]])
    seconds = np.array([*np.ones(8), 3.0])[:, np.newaxis]
    assert _roofline(causes, seconds)[0, 1] == 0.0
    causes[0, 1] = 1e-6  # now two have it
    assert _roofline(causes, seconds)[0, 1] > 0.0
