"""A part of a network as a network of its own, so that it can be repeated for seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from onnx.utils import Extractor

from bench.layers.origin import name_of
from optimizer.layers.graph import read_graph
from optimizer.layers.layer import Tensor


class Cutter:
    """Cuts parts out of a network at one batch size.

    Args:
        model: the network with its weights. Changed: its tensors are described as they are at this batch.
        batch: images to a batch; the parts are fixed to it.

    Raises:
        ValueError: the shapes cannot be known.
    """

    def __init__(self, model: ModelProto, batch: int) -> None:
        graph = read_graph(model, batch)
        self._constants = graph.constants.keys()
        self._nodes: Sequence[NodeProto] = model.graph.node
        self._answers = {value.name for value in model.graph.output}
        _describe(model, graph.tensors.values())
        self._extractor = Extractor(model)

    def cut(self, nodes: Sequence[str], path: Path) -> None:
        """Write the nodes of these names as an ONNX file; names as `optimizer.layers` gives them.

        What they read becomes its inputs, and what others read of them its outputs.
        """
        inside = [node for node in self._nodes if name_of(node) in nodes]
        made = {output for node in inside for output in node.output}
        wanted = self._answers | {
            name for node in self._nodes if node.output[0] not in made for name in node.input
        }
        taken = dict.fromkeys(name for node in inside for name in node.input if self._flows(name, made))
        given = dict.fromkeys(name for node in inside for name in node.output if name in wanted)
        onnx.save(self._extractor.extract_model(list(taken), list(given)), path)

    def _flows(self, name: str, made: set[str]) -> bool:
        return bool(name) and name not in made and name not in self._constants


def _describe(model: ModelProto, tensors: Iterable[Tensor]) -> None:
    known = {tensor.name: _described(tensor) for tensor in tensors}
    del model.graph.value_info[:]
    model.graph.value_info.extend(
        known[name] for node in model.graph.node for name in node.output if name in known
    )
    for value in (*model.graph.input, *model.graph.output):
        value.CopyFrom(known[value.name])


def _described(tensor: Tensor) -> ValueInfoProto:
    kind = TensorProto.DataType.Value(tensor.datatype.upper())
    return helper.make_tensor_value_info(tensor.name, kind, tensor.shape)
