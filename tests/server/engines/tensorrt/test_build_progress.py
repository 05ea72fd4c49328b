from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from server.engines.tensorrt.build_progress import PhaseTree, logged_progress, make_monitor


def test_inner_phases_fill_the_step_that_they_belong_to() -> None:
    tree = PhaseTree()
    tree.start("build", None, 4)
    assert tree.share() == 0
    tree.step("build", 0)
    assert tree.share() == 0.25
    tree.start("inner", "build", 2)
    tree.step("inner", 0)
    assert tree.share() == 0.375
    tree.finish("inner")
    tree.step("build", 3)
    assert tree.share() == 1


def test_it_never_falls() -> None:
    tree = PhaseTree()
    tree.start("build", None, 2)
    tree.start("first", "build", 1)
    tree.step("first", 0)
    before = tree.share()
    tree.finish("first")
    tree.start("second", "build", 10)
    assert tree.share() >= before > 0
    tree.finish("build")
    assert tree.share() == 1


def test_phases_that_were_not_announced_do_no_harm() -> None:
    tree = PhaseTree()
    tree.step("unknown", 3)
    tree.finish("unknown")
    assert tree.share() == 0
    tree.start("odd", None, 0)
    tree.step("odd", 0)
    assert tree.share() == 1


def test_without_the_interface_nothing_is_reported() -> None:
    assert make_monitor(SimpleNamespace(), lambda _share, _phase: True) is None


def test_long_builds_tell_the_log_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 100.0
    with caplog.at_level(logging.INFO):
        on_progress = logged_progress("net", lambda: now_s)
        for second in range(12):
            now_s = 100.0 + second
            assert on_progress(second / 12, "timing")
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["building net: 42 % (timing)", "building net: 83 % (timing)"]
