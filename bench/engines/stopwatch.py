"""Time inside a framework, told apart from the time of the engine around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, ParamSpec, TypeVar

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


class Stopwatch(Generic[Given, Answer]):
    """A call that adds up how long it takes.

    Args:
        call: what is timed.
        clock: seconds, rising.
    """

    def __init__(self, call: Callable[Given, Answer], clock: Callable[[], float]) -> None:
        self._call = call
        self._clock = clock
        self.total_s = 0.0

    def __call__(self, *args: Given.args, **named: Given.kwargs) -> Answer:
        """Make the call."""
        began_s = self._clock()
        answer = self._call(*args, **named)
        self.total_s += self._clock() - began_s
        return answer


@dataclass(frozen=True, slots=True)
class Split:
    """One batch: how long the framework took, and how long the engine took around it."""

    inside_s: float
    around_s: float


def split_run(
    run: Callable[[], object], inside: Sequence[Stopwatch[..., object]], clock: Callable[[], float]
) -> Split:
    """Run one batch, in which those of `inside` are called, none within another."""
    before_s = sum(watch.total_s for watch in inside)
    began_s = clock()
    run()
    whole_s = clock() - began_s
    inside_s = sum(watch.total_s for watch in inside) - before_s
    return Split(inside_s, whole_s - inside_s)
