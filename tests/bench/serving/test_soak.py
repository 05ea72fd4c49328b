from __future__ import annotations

import math

from bench.serving.report import Figure
from bench.serving.soak import Counts, Sample, figures


def _judge(resident_mib: list[float], descriptors: list[int]) -> dict[str, Figure]:
    samples = [
        Sample(float(at), memory, count)
        for at, (memory, count) in enumerate(zip(resident_mib, descriptors, strict=True))
    ]
    return {figure.name: figure for figure in figures(samples, Counts(10, 2))}


def test_a_warm_up_that_levels_off_is_no_growth() -> None:
    found = _judge([300 * (1 - math.exp(-at / 5)) for at in range(100)], [20] * 100)
    assert found["growth, second to last quarter"].reached is True


def test_steady_growth_is_seen() -> None:
    found = _judge([200 + 0.5 * at for at in range(100)], [20] * 100)
    assert found["growth, second to last quarter"].reached is False


def test_a_noisy_but_level_course_is_no_growth() -> None:
    found = _judge([300 + 10 * math.sin(at) for at in range(100)], [20] * 100)
    assert found["growth, second to last quarter"].reached is True


def test_a_lost_descriptor_is_seen() -> None:
    found = _judge([300.0] * 100, [20] * 60 + [21] * 40)
    assert found["descriptors lost, second to last quarter"].reached is False
