"""What an operator's conversion may ask about its node, and how it adds to the module being made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from server.onnx_graph import Shape

Sizes: TypeAlias = list[Any]
"""Lengths of dimensions: whole numbers, or nodes that give one when the module runs."""

Value: TypeAlias = "fx.Node | NDArray[Any] | Sizes"
"""A tensor of the running module, a constant of the file, or sizes."""

Given = TypeVar("Given")


_ORIGIN = "onnx_node"


def origin_of(node: fx.Node) -> str:
    """Name the node of the ONNX graph that a call was made for, by its first output where it has no name.

    Empty for what was made for none.
    """
    name: str = node.meta.get(_ORIGIN, "")
    return name


class Unsupported(Exception):
    """The graph asks for something that has no counterpart here."""


class Builder:
    """The module being made: a graph of calls, and the constants that they use."""

    def __init__(self) -> None:
        self._root = nn.Module()
        self._graph = fx.Graph()
        self._constants = 0
        self._origin = ""

    def begin(self, origin: str) -> None:
        """Mark the calls that follow as those of this node of the ONNX graph; see `origin_of`."""
        self._origin = origin

    def input(self, index: int) -> fx.Node:
        """Add an input of the module."""
        return self._graph.placeholder(f"input_{index}")

    def call(self, function: Callable[..., Any], *args: object, **named: object) -> fx.Node:
        """Add a call."""
        made = self._graph.call_function(function, args, named)
        made.meta[_ORIGIN] = self._origin
        return made

    def tensor(self, value: Value) -> fx.Node:
        """Return the value as a tensor of the module; a constant becomes one of its buffers."""
        if isinstance(value, fx.Node):
            return value
        if isinstance(value, list):
            return self.call(torch.tensor, value)
        name = f"constant_{self._constants}"
        self._constants += 1
        self._root.register_buffer(name, torch.from_numpy(np.array(value)))
        return self._graph.get_attr(name)

    def finish(self, outputs: tuple[fx.Node, ...]) -> fx.GraphModule:
        """Return the module; its forward returns the outputs as a tuple, never a constant itself."""
        self.begin("")
        own = [self.call(torch.clone, node) if node.op == "get_attr" else node for node in outputs]
        self._graph.output(tuple(own))
        return fx.GraphModule(self._root, self._graph).eval()


@dataclass(frozen=True, slots=True)
class Operands:
    """One node of the ONNX graph, on its way into the module.

    Args:
        builder: the module being made.
        values: the inputs in order; None where one is left out.
        attributes: as the node gives them.
        shape: of the first input, as far as it is known before the module runs; None: not even its length.
        opset: version of the operators.
        outputs: how many outputs the node has.
    """

    builder: Builder
    values: tuple[Value | None, ...]
    attributes: Mapping[str, Any]
    shape: Shape | None
    opset: int
    outputs: int

    def get(self, index: int) -> Value | None:
        """Return an input as it is; None when it is left out."""
        return self.values[index] if index < len(self.values) else None

    def has(self, index: int) -> bool:
        """Whether an input is given."""
        return self.get(index) is not None

    def tensor(self, index: int) -> fx.Node:
        """Return an input as a tensor."""
        value = self.get(index)
        if value is None:
            raise Unsupported(f"input {index} is missing")
        return self.builder.tensor(value)

    def tensor_or_none(self, index: int) -> fx.Node | None:
        """Return an input as a tensor; None when it is left out."""
        return self.tensor(index) if self.has(index) else None

    def constant(self, index: int) -> NDArray[Any]:
        """Return an input whose value must be known before anything runs."""
        value = self.get(index)
        if isinstance(value, list) and all(isinstance(size, int) for size in value):
            return np.array(value)
        if not isinstance(value, np.ndarray):
            raise Unsupported(f"input {index} must be a constant")
        return value

    def sizes(self, index: int) -> Sizes:
        """Return an input that holds lengths."""
        value = self.get(index)
        return value if isinstance(value, list) else self.whole(index)

    def whole(self, index: int) -> list[int]:
        """Return a constant input as whole numbers."""
        return [int(number) for number in self.constant(index).reshape(-1)]

    def settings(self, name: str, index: int) -> list[int] | None:
        """Return whole numbers that older operator versions have as an attribute and newer as an input."""
        if name in self.attributes:
            return list(self.attributes[name])
        return self.whole(index) if self.has(index) else None

    def attribute(self, name: str, default: Given) -> Given:
        """Return an attribute or its default, which is of the same type."""
        value: Given = self.attributes.get(name, default)
        return value

    def call(self, function: Callable[..., Any], *args: object, **named: object) -> fx.Node:
        """Add a call."""
        return self.builder.call(function, *args, **named)
