"""How much of a step's answer goes to memory that its run has not touched yet.

An engine plans once where tensors lie: one that nobody reads any more leaves its place to those that come.
Memory that a run comes to for the first time was last touched a whole run ago, and no cache holds it. The
rules are those of ONNX Runtime 1.31: an answer takes the place of an input that it can overwrite, else the
tightest gap between tensors that are still needed, else the place behind the last of them. So what a run has
touched is always one piece from the beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from optimizer.layers.fusion import SUMS, Kind, Step
from optimizer.layers.layout import Placing


@dataclass(frozen=True, slots=True)
class _Write:
    """A tensor that is written, by a step or by copying one to the other layout; tensors by their names.

    Args:
        step: the number of the step that answers with it; None for a copy.
        name: of the tensor.
        size_bytes: of the tensor.
        reads: what must be there for it.
        over: which of `reads` it may overwrite.
    """

    step: int | None
    name: str
    size_bytes: int
    reads: tuple[str, ...]
    over: tuple[str, ...] = ()


@dataclass(slots=True)
class _Memory:
    """Which bytes, from the beginning, hold tensors that are still needed, and how many were touched."""

    held: dict[str, tuple[int, int]] = field(default_factory=dict)
    touched: int = 0

    def take(self, write: _Write, done: Sequence[str]) -> int:
        """Find a place for a tensor, perhaps that of one that is done with; return how much of it is new."""
        same = [name for name in done if name in self.held and self._size(name) == write.size_bytes]
        begin = self.held.pop(same[0])[0] if same else self._gap(write.size_bytes)
        end = begin + write.size_bytes
        self.held[write.name] = begin, end
        new, self.touched = max(0, end - self.touched), max(end, self.touched)
        return new

    def leave(self, names: Iterable[str]) -> None:
        """Let go of tensors; of those that it does not hold nothing happens."""
        for name in names:
            self.held.pop(name, None)

    def _size(self, name: str) -> int:
        begin, end = self.held[name]
        return end - begin

    def _gap(self, size_bytes: int) -> int:
        """Return where the tightest gap begins that is large enough, or where the last tensor ends."""
        gaps, end = [], 0
        for begin, after in sorted(self.held.values()):
            if begin - end >= size_bytes:
                gaps.append((begin - end, end))
            end = max(end, after)
        return min(gaps)[1] if gaps else end


def fresh_bytes(steps: Sequence[Step], placed: Sequence[Placing]) -> tuple[int, ...]:
    """Return for each step how much of its answer goes to memory that no earlier step of a run touched.

    Args:
        steps: of a network, in the order of the graph.
        placed: how each of them lies.
    """
    writes = tuple(_writes(steps, placed))
    last = {name: place for place, write in enumerate(writes) for name in (write.name, *write.reads)}
    read = {name for write in writes for name in write.reads}
    memory, fresh = _Memory(), [0] * len(steps)
    for place, write in enumerate(writes):
        new = write.size_bytes  # the network's answer gets memory of its own
        if write.name in read:
            new = memory.take(write, [name for name in write.over if last[name] == place])
        if write.step is not None:
            fresh[write.step] = new
        memory.leave(name for name in (write.name, *write.reads) if last[name] == place)
    return tuple(fresh)


def _writes(steps: Sequence[Step], placed: Sequence[Placing]) -> Iterator[_Write]:
    """Yield everything that is written, in turn; several answers of a step count as one."""
    made = {tensor.name: tensor.name for tensor in steps[0].leader.inputs} if steps else {}
    copied: set[str] = set()
    before = ""
    for number, (step, placing) in enumerate(zip(steps, placed, strict=True)):
        # what no step made is the answer of the step before under another shape
        named = [(tensor, made.get(tensor.name, before)) for tensor in step.inputs]
        turned = {name: tensor.size_bytes for tensor, name in named if tensor.name in placing.turned}
        yield from (
            _Write(None, _copy(name), size, (name,)) for name, size in turned.items() if name not in copied
        )
        copied.update(turned)
        reads = tuple(_copy(name) if name in turned else name for _, name in named)
        answers = (step.followers[-1] if step.followers else step.leader).outputs
        before, size = answers[0].name, sum(tensor.size_bytes for tensor in answers)
        yield _Write(number, before, size, reads, _over(step, placing, reads))
        made.update(dict.fromkeys(step.tensors, before))
        if before in placing.turned:
            yield _Write(None, _copy(before), size, (before,))
            before = _copy(before)


def _copy(name: str) -> str:
    return f"{name} turned"


def _over(step: Step, placing: Placing, reads: tuple[str, ...]) -> tuple[str, ...]:
    """Return what an answer may overwrite: it is computed number by number, or added to a sum in blocks."""
    if step.kind is Kind.ELEMENTWISE:
        return reads
    summed = placing.blocked and any(follower.operator in SUMS for follower in step.followers)
    return reads[-1:] if summed else ()
