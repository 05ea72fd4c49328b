from __future__ import annotations

import math

from bench.compare.time_limit import TimeLimit


def test_what_ends_later_is_not_allowed() -> None:
    now_s = [100.0]
    limit = TimeLimit(60.0, lambda: now_s[0])
    assert limit.allows(0.0)
    assert limit.allows(59.0)
    assert not limit.allows(60.0)
    now_s[0] = 170.0
    assert limit.left_s == 0.0
    assert not limit.allows(0.0)


def test_without_a_limit_everything_is_allowed() -> None:
    assert TimeLimit().allows(1e12)
    assert TimeLimit().divided(3).left_s == math.inf


def test_parts_share_what_is_left() -> None:
    now_s = [0.0]
    limit = TimeLimit(90.0, lambda: now_s[0])
    assert limit.divided(3).left_s == 30.0
    now_s[0] = 10.0  # the first part took less than its share: the others have more
    assert limit.divided(2).left_s == 40.0
