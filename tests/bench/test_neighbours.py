from __future__ import annotations

import os
import time

import pytest

from bench.neighbours import Looks, Neighbours, look, read


def test_every_core_is_looked_at_and_all_may_be_used_afterwards() -> None:
    cores = os.sched_getaffinity(0)
    seconds = look()
    assert len(seconds) == len(cores)
    assert min(seconds) > 0.0
    assert os.sched_getaffinity(0) == cores


def test_it_looks_while_something_is_measured_and_stops_then() -> None:
    with Neighbours() as neighbours:
        time.sleep(1.0)
        process = neighbours._process
    assert process.returncode is not None
    looks = neighbours.looks
    assert looks.disturbed is None or 0.0 <= looks.disturbed < 1.0


def test_looks_that_took_nearly_twice_as_long_as_the_shortest_were_disturbed() -> None:
    looks = read("0.001 0.0011\n0.0019 0.001\n")
    assert looks.disturbed == pytest.approx(0.25)
    assert str(looks) == "neighbours shared a core in 25% of 4 looks"


def test_a_line_that_was_cut_short_does_not_count() -> None:
    assert read("0.001 0.001\n0.002 0.0") == Looks([[0.001, 0.001]])


def test_nobody_looked() -> None:
    looks = read("")
    assert looks.disturbed is None
    assert "nobody looked" in str(looks)
