"""Plans are made once for a header, kept while it is worth it, and bounded."""

from __future__ import annotations

import numpy as np
import pytest

from server.engines.engine import TensorSpec
from server.errors import InvalidArgument
from server.inference.plan_cache import PlanCache
from server.models.spec import ModelSpec
from server.wire.tensors import InputHeader, OutputHeader, RegionSlice, RequestHeader

SPEC = ModelSpec(
    name="pair",
    version=3,
    platform="test",
    max_batch=8,
    inputs=(TensorSpec("a", "FP32", (4,)), TensorSpec("b", "UINT8", (2, 2))),
    outputs=(TensorSpec("y", "FP32", (10,)), TensorSpec("mask", "BOOL", (2,))),
)


def header(*inputs: InputHeader, outputs: tuple[OutputHeader, ...] = ()) -> RequestHeader:
    return RequestHeader("pair", "", inputs, outputs, 0, 1_500_000, empty_final_response=False)


def a(**more: object) -> InputHeader:
    return InputHeader("a", "FP32", (2, 4), **more)


def b(**more: object) -> InputHeader:
    return InputHeader("b", "UINT8", (2, 2, 2), **more)


def test_what_a_plan_says() -> None:
    plan = PlanCache(SPEC).find(header(b(), a()))
    assert (plan.images, plan.nbytes, plan.timeout_s) == (2, 2 * 16 + 2 * 4, 1.5)
    assert [(tensor.spec.name, tensor.raw_index, tensor.shape) for tensor in plan.inputs] == [
        ("a", 1, (2, 4)),
        ("b", 0, (2, 2, 2)),
    ]
    assert [(output.name, output.shape, output.nbytes) for output in plan.outputs] == [
        ("y", (2, 10), 80),
        ("mask", (2, 2), 4),
    ]


def test_the_raw_index_skips_shared_memory() -> None:
    plan = PlanCache(SPEC).find(header(a(region=RegionSlice("io", 0, 32)), b()))
    assert [tensor.raw_index for tensor in plan.inputs] == [None, 0]


def test_one_plan_for_one_header() -> None:
    cache, one, other = PlanCache(SPEC), header(a(), b()), header(a(), b())
    assert cache.find(one) is cache.find(one)
    assert cache.find(one) is not cache.find(other)
    assert len(cache) == 2


@pytest.mark.parametrize(
    "tensor", [a(typed=np.zeros(8, np.float32)), a(region=RegionSlice("x" * 1000, 0, 32))]
)
def test_what_is_unique_or_heavy_is_not_kept(tensor: InputHeader) -> None:
    cache = PlanCache(SPEC)
    cache.find(header(tensor, b()))
    assert len(cache) == 0


def test_the_oldest_goes_first() -> None:
    cache = PlanCache(SPEC, capacity=2)
    headers = [header(a(), b()) for _ in range(3)]
    plans = [cache.find(each) for each in headers]
    assert len(cache) == 2
    assert cache.find(headers[2]) is plans[2]
    assert cache.find(headers[0]) is not plans[0]


def test_a_refused_header_is_not_kept() -> None:
    cache, wrong = PlanCache(SPEC), header(a())
    for _ in range(2):
        with pytest.raises(InvalidArgument, match="expects the inputs 'a', 'b', got 'a'"):
            cache.find(wrong)
    assert len(cache) == 0


def test_booleans_cannot_be_ranked() -> None:
    with pytest.raises(InvalidArgument, match="cannot be classified"):
        PlanCache(SPEC).find(header(a(), b(), outputs=(OutputHeader("mask", 1, None),)))
