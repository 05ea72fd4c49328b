"""Which nodes of a graph ONNX Runtime does in which of its own: it fuses, folds and renames them.

Between the graph as given and the graph as executed, most tensors keep their names. Where the layout changes
they do not, but the name of the node then holds that of the answer it had before (`relu_3_nchwc`). So each
executed node is given the node that made this answer, and with it everything before it that nobody executed
earlier. What would have to read something that the executed node does not read is not believed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from onnx import ModelProto, NodeProto

from optimizer.layers.arithmetic import MOVES, VIEWS

_RENAMED = re.compile(r"(?P<answer>.+)_nchwc(_token_\d+)?")
_SUMMAND = 3  # the input that a convolution in blocked layout adds to its answer
_NUMBERED = re.compile(r"(?P<name>.+)_token_\d+")
_WEIGHTY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_LAYOUT = frozenset({"ReorderInput", "ReorderOutput"})
_OFTEN_ADDED = frozenset(
    {"Transpose", "Cast", "QuantizeLinear", "DequantizeLinear", "MemcpyToHost", "MemcpyFromHost"}
)

_CHEAP = VIEWS | MOVES | _OFTEN_ADDED
_REPEATED = VIEWS | _OFTEN_ADDED


@dataclass(frozen=True, slots=True)
class Origins:
    """What became of the nodes.

    Args:
        nodes: for the name of each executed node, the nodes that it does, in the order of the graph; () for
            what was added, or cannot be told.
        unseen: nodes in none of them.
    """

    nodes: Mapping[str, tuple[str, ...]]
    unseen: tuple[str, ...]


def find_origins(given: ModelProto, executed: ModelProto) -> Origins:
    """Compare the graph as given with the graph as executed; the nodes of both in order of execution.

    Nodes are named as `optimizer.layers.count_layers` names them. Constants that are computed of constants
    are not listed.
    """
    search = _Search(_index(given), {tensor.name for tensor in executed.graph.initializer})
    claims = {node.name: search.claim(node) for node in executed.graph.node}
    unseen = search.index.listed - set().union(*claims.values())
    return Origins(
        {name: search.index.names(claimed) for name, claimed in claims.items()}, search.index.names(unseen)
    )


def operators_of(model: ModelProto) -> dict[str, str]:
    """Map the nodes that run for each batch to their operators, in order; constants are left out."""
    index = _index(model)
    return {name_of(index.nodes[place]): index.nodes[place].op_type for place in sorted(index.listed)}


def main_node(names: Sequence[str], operators: Mapping[str, str]) -> str:
    """Choose the node that several are named after: the convolution or matrix product, else the first."""
    weighty = [name for name in names if operators.get(name) in _WEIGHTY]
    return (weighty or list(names))[0]


def name_of(node: NodeProto) -> str:
    """Name a node as `optimizer.layers` does."""
    return node.name or node.output[0]


@dataclass(frozen=True, slots=True)
class _Index:
    """The graph as given; nodes are known by their place in it.

    Args:
        nodes: all of them.
        maker: which node answers with a tensor.
        constants: tensors that are known before anything runs.
    """

    nodes: tuple[NodeProto, ...]
    maker: Mapping[str, int]
    constants: Set[str]

    @property
    def listed(self) -> set[int]:
        return {place for place, node in enumerate(self.nodes) if node.output[0] not in self.constants}

    def names(self, places: Set[int]) -> tuple[str, ...]:
        return tuple(name_of(self.nodes[place]) for place in sorted(places & self.listed))

    def flowing(self, place: int) -> list[str]:
        """What a node reads that is no constant."""
        return [name for name in self.nodes[place].input if name and name not in self.constants]

    def readers(self, tensor: str) -> list[int]:
        return [place for place, node in enumerate(self.nodes) if tensor in node.input]


def _index(model: ModelProto) -> _Index:
    nodes = tuple(model.graph.node)
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in nodes:
        if all(name in constants for name in node.input if name):
            constants.update(node.output)
    maker = {output: place for place, node in enumerate(nodes) for output in node.output if output}
    return _Index(nodes, maker, constants)


@dataclass(slots=True)
class _Search:
    """What is claimed so far.

    Args:
        index: the graph as given.
        own_constants: constants of the executed graph.
        done: nodes that were claimed.
        stands_for: for a tensor of the executed graph, the one of the given graph that it holds.
        answers: tensors that executed nodes answered with; what lies between them exists nowhere.
    """

    index: _Index
    own_constants: Set[str]
    done: set[int] = field(default_factory=set)
    stands_for: dict[str, str] = field(default_factory=dict)
    answers: set[str] = field(default_factory=set)

    def claim(self, node: NodeProto) -> set[int]:
        """Return the nodes that an executed node does."""
        answer = self._answer(node)
        if answer is None:
            self._pass_on(node)
            return set()
        answer = self._with_sum_and_activation(node, answer)
        reads = {self._meaning(name) for name in node.input if name and name not in self.own_constants}
        found = self._before(answer)
        self.stands_for[node.output[0]] = answer
        self.answers.update((answer, *(name for name in node.output if name in self.index.maker)))
        if not self._believed(node, found, reads):
            return set()
        self.done |= found
        return found

    def _answer(self, node: NodeProto) -> str | None:
        if node.op_type in _LAYOUT:
            return None
        renamed = _RENAMED.fullmatch(node.name)
        candidates: list[str] = [*node.output, *([renamed["answer"]] if renamed else [])]
        for name in candidates:
            if name in self.index.maker:
                return name
        own = _NUMBERED.fullmatch(node.name)
        name = own["name"] if own else node.name
        same: list[str] = [given.output[0] for given in self.index.nodes if given.name == name != ""]
        return same[0] if len(same) == 1 else None

    def _pass_on(self, node: NodeProto) -> None:
        if node.input and node.output:
            self.stands_for[node.output[0]] = self._meaning(node.input[0])

    def _meaning(self, tensor: str) -> str:
        return self.stands_for.get(tensor, tensor)

    def _with_sum_and_activation(self, node: NodeProto, answer: str) -> str:
        """Go on to what a convolution in blocked layout does after the answer that it is named after."""
        if len(node.input) > _SUMMAND and _RENAMED.fullmatch(node.name):
            answer = self._next(answer, "Add", self._meaning(node.input[_SUMMAND])) or answer
        for attribute in node.attribute:
            kind = attribute.s.decode()
            if attribute.name == "activation" and self._maker_of(answer).op_type != kind:
                answer = self._next(answer, kind) or answer
        return answer

    def _maker_of(self, tensor: str) -> NodeProto:
        return self.index.nodes[self.index.maker[tensor]]

    def _next(self, tensor: str, operator: str, other: str = "") -> str | None:
        for place in self.index.readers(tensor):
            node = self.index.nodes[place]
            if node.op_type == operator and set(self.index.flowing(place)) <= {tensor, other or tensor}:
                return node.output[0]
        return None

    def _before(self, answer: str) -> set[int]:
        """Return what leads to an answer and was not executed before, back to what others answered with."""
        found: set[int] = set()
        open_tensors = [answer]
        while open_tensors:
            place = self.index.maker.get(open_tensors.pop())
            if place is not None and place not in found and place not in self.done:
                found.add(place)
                open_tensors += set(self.index.nodes[place].input) - self.answers
        return found

    def _believed(self, node: NodeProto, found: set[int], reads: set[str]) -> bool:
        operators = {self.index.nodes[place].op_type for place in found}
        if node.op_type in _OFTEN_ADDED and (node.op_type not in operators or not operators <= _CHEAP):
            return False
        made = {output for place in found for output in self.index.nodes[place].output}
        needed = {name for place in found for name in self.index.flowing(place)} - made
        return all(self._known(name, reads) for name in needed)

    def _known(self, tensor: str, reads: set[str]) -> bool:
        """Whether a tensor is read, or follows from what is read: nodes that cost little are repeated."""
        if tensor in reads:
            return True
        place = self.index.maker.get(tensor)
        if place is None:
            return False
        if tensor in self.answers and self.index.nodes[place].op_type not in _REPEATED:
            return False
        return all(self._known(name, reads) for name in self.index.flowing(place))
