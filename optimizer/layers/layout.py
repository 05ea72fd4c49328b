"""How an engine lays out numbers in memory: steps on blocks of channels, and what is turned for them.

A vector unit takes the same pixel of sixteen channels at once when they lie side by side. ONNX Runtime's CPU
engine keeps tensors so wherever both sides can: convolutions whose input channels come in fours, poolings of
whole blocks, and what is computed number by number between them. All others read and write one channel after
the other, and where the two meet the engine copies a tensor from one layout to the other. The rules are those
of ONNX Runtime 1.31 on processors with AVX-512, found by timing single layers; a predictor learns what they
are worth on the engine that it is fitted to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from optimizer.layers.fusion import SUMS, Kind, Step
from optimizer.layers.layer import Layer, Tensor

BLOCK = 16
"""Channels that a vector unit or a tensor core takes at once: a last block that is not full costs as much."""

_LANES = 4
"""Channels that convolutions in blocks must come in; the rest of a block is filled with nought."""
_BLOCKED_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"})
_BLOCKED_EACH = SUMS | {"Mul", "Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "Tanh", "BatchNormalization"}
_SCALAR_MEANS_FROM = 19
"""The version of ONNX's AveragePool since which it may have dilations: the engine's general code computes it
number by number, 15 times as slowly as the vectorised one, unless it runs in blocks."""


@dataclass(frozen=True, slots=True)
class Placing:
    """How a step lies in memory.

    Args:
        blocked: it works on blocks of channels.
        scalar: its code takes one number at a time.
        turned_bytes: of tensors that are copied from one layout to the other for its sake.
        turned: names of tensors that it needs in the other layout, copied for its sake or before.
    """

    blocked: bool
    scalar: bool
    turned_bytes: int
    turned: frozenset[str] = frozenset()


def placings(steps: Sequence[Step]) -> tuple[Placing, ...]:
    """Return how each step of a network lies; steps in the order of the graph."""
    blocked, answers_blocked = _laid_out(steps)
    turned, unread = set[str](), _unread(steps)
    found = []
    for step, in_blocks in zip(steps, blocked, strict=True):
        met = set(_meeting(step, in_blocks, answers_blocked))
        moved = {tensor for tensor in met if tensor.name not in turned}
        turned.update(tensor.name for tensor in moved)
        # what nobody reads is the network's answer, or is seen under another shape: both are plain
        ends = {one for one in _answers(step) if answers_blocked[one.name] and one.name in unread}
        turned_bytes = sum(tensor.size_bytes for tensor in moved | ends)
        names = frozenset(tensor.name for tensor in met | ends)
        found.append(Placing(in_blocks, not in_blocks and _is_scalar(step.leader), turned_bytes, names))
    return tuple(found)


def _laid_out(steps: Sequence[Step]) -> tuple[list[bool], dict[str, bool]]:
    """Return whether each step works in blocks, and whether what it answers with lies in blocks."""
    blocked: list[bool] = []
    made: dict[str, bool] = {}
    for step in steps:
        blocked.append(_blocked(step, made))
        inside = set(step.tensors)
        branches = [t for part in step.followers for t in part.inputs if t.name not in inside]
        # a sum with a branch that is plain is plain
        answers = blocked[-1] and all(made.get(branch.name, False) for branch in branches)
        made.update(dict.fromkeys(step.tensors, answers))
    return blocked, made


def _blocked(step: Step, made: Mapping[str, bool]) -> bool:
    layer = step.leader
    if step.kind in {Kind.CONVOLUTION, Kind.DEPTHWISE}:
        return layer.operator == "Conv" and len(layer.inputs[0].shape) == 4 and _fits(step)
    channels = [tensor.shape[1] for tensor in layer.inputs if len(tensor.shape) == 4]
    if len(channels) != len(layer.inputs) or not channels:
        return False
    if layer.operator in _BLOCKED_POOLS:
        return channels[0] % BLOCK == 0
    before = all(made.get(tensor.name, False) for tensor in layer.inputs)
    if layer.operator == "Concat":
        return before and all(count % BLOCK == 0 for count in channels)
    return before and layer.operator in _BLOCKED_EACH and len({t.shape for t in layer.inputs}) == 1


def _fits(step: Step) -> bool:
    """Whether the channels of a convolution go into blocks."""
    layer = step.leader
    into, out, groups = layer.inputs[0].shape[1], layer.outputs[0].shape[1], layer.groups
    if step.kind is Kind.DEPTHWISE:
        return out == groups and out % _LANES == 0
    if groups > 1:
        return into // groups % BLOCK == 0 and out // groups % BLOCK == 0
    return into < BLOCK or into % _LANES == 0


def _takes_plain(layer: Layer) -> bool:
    """Whether it reads plain channels though it writes blocks: an image has too few to be turned."""
    return layer.operator == "Conv" and layer.groups == 1 and layer.inputs[0].shape[1] < BLOCK


def _meeting(step: Step, in_blocks: bool, made: Mapping[str, bool]) -> Iterator[Tensor]:
    """Yield what a step reads or makes in the layout that is not the one in which it is needed."""
    reads_blocks = in_blocks and not _takes_plain(step.leader)
    yield from (tensor for tensor in step.leader.inputs if made.get(tensor.name, False) is not reads_blocks)
    inside = set(step.tensors)
    answer = _answers(step)[0]
    if in_blocks is not made[answer.name]:
        yield from step.leader.outputs
    branches = (tensor for part in step.followers for tensor in part.inputs if tensor.name not in inside)
    yield from (t for t in branches if made.get(t.name, False) is not made[answer.name])


def _answers(step: Step) -> tuple[Tensor, ...]:
    return (step.followers[-1] if step.followers else step.leader).outputs


def _unread(steps: Sequence[Step]) -> set[str]:
    read = {
        tensor.name for step in steps for part in (step.leader, *step.followers) for tensor in part.inputs
    }
    return {tensor.name for step in steps for tensor in _answers(step)} - read


def _is_scalar(layer: Layer) -> bool:
    return layer.operator == "AveragePool" and layer.version >= _SCALAR_MEANS_FROM
