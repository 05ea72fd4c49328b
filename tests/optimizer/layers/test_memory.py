"""Which answers go to memory that a run has not touched yet."""

from __future__ import annotations

from made_network import Node, network
from made_network import steps as steps_of

from optimizer.layers.features import features
from optimizer.layers.fusion import Step
from optimizer.layers.layout import placings
from optimizer.layers.memory import fresh_bytes

MEAN = {"kernel_shape": [3, 3], "pads": [1] * 4}
HALVING = {"kernel_shape": [2, 2], "strides": [2, 2]}
SIZE = 4 * 8 * 8  # of a channel's numbers


def steps(channels: int, *nodes: Node, batch: int = 1, **weights: tuple[int, ...]) -> tuple[Step, ...]:
    return steps_of(network(channels, *nodes, **weights), batch)


def fresh(found: tuple[Step, ...]) -> tuple[int, ...]:
    return fresh_bytes(found, placings(found))


def chain(*names: str) -> list[Node]:
    return [("MaxPool", [read], made, MEAN) for read, made in zip(("x", *names), names, strict=False)]


def test_an_answer_takes_the_place_of_what_nobody_reads_any_more() -> None:
    # two places in turn; the network's answer gets one of its own
    assert fresh(steps(3, *chain("a", "b", "c", "d"))) == (3 * SIZE, 3 * SIZE, 0, 3 * SIZE)


def test_what_is_read_later_keeps_its_place() -> None:
    joined: Node = ("Add", ["a", "d"], "y", {})
    last: Node = ("MaxPool", ["y"], "z", MEAN)
    found = fresh(steps(3, *chain("a", "b", "c", "d"), joined, last))
    # `a` stays, `b` and `c` get places, `d` that of `b`, the sum overwrites `a`
    assert found == (3 * SIZE, 3 * SIZE, 3 * SIZE, 0, 0, 3 * SIZE)


def test_a_function_of_one_number_overwrites_it() -> None:
    nodes = [*chain("a"), ("Exp", ["a"], "e", {}), ("MaxPool", ["e"], "z", MEAN)]
    assert fresh(steps(3, *nodes)) == (3 * SIZE, 0, 3 * SIZE)


def test_the_tightest_gap_is_taken_and_what_does_not_fit_goes_behind() -> None:
    smaller: Node = ("MaxPool", ["b"], "s", HALVING)
    wider: Node = ("Concat", ["s", "s"], "w", {"axis": 1})
    last: Node = ("MaxPool", ["w"], "z", MEAN)
    # `s` goes where `a` was, and the join of two of it behind `s`, where `a` and `b` were
    assert fresh(steps(3, *chain("a", "b"), smaller, wider, last))[2:4] == (0, 0)
    larger: Node = ("Concat", ["b", "b", "b"], "w", {"axis": 1})
    # only the end of `b` is there: `w` is needed behind it
    assert fresh(steps(3, *chain("a", "b"), larger, last))[2] == 9 * SIZE


def test_copies_between_layouts_need_memory_too() -> None:
    conv: Node = ("Conv", ["x", "w"], "c", {"kernel_shape": [1, 1]})
    nodes = [conv, *[("MaxPool", ["c"], "p", MEAN), ("MaxPool", ["p"], "z", MEAN)]]
    in_blocks = fresh(steps(16, *nodes, w=(16, 16, 1, 1)))
    plain = fresh(steps(22, *nodes, w=(22, 22, 1, 1)))
    assert plain == (22 * SIZE, 22 * SIZE, 22 * SIZE)
    assert in_blocks[:2] == (16 * SIZE, 0)  # the copy of the input lay where the pooling writes


def test_new_memory_grows_with_the_batch() -> None:
    nodes = [*chain("a", "b", "c"), ("Exp", ["c"], "e", {}), ("MaxPool", ["e"], "z", MEAN)]
    once, at_four = features(steps(3, *nodes)), features(steps(3, *nodes, batch=4))
    assert once.at((4,)).column("fresh_bytes").tolist() == at_four.column("fresh_bytes").tolist()
