"""An ONNX file into a TensorRT network, and what stood in the way, in words that say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from server.engines.engine import TensorSpec
from server.engines.graph_specs import GraphSpecs, read_graph_specs
from server.engines.tensorrt.messages import Messages
from server.errors import EngineError

DATATYPES = {
    "BOOL": "BOOL",
    "UINT8": "UINT8",
    "INT8": "INT8",
    "INT32": "INT32",
    "INT64": "INT64",
    "HALF": "FP16",
    "FLOAT": "FP32",
}
"""TensorRT's names of the datatypes that a client can send, with the protocol's."""

_UNSUPPORTED = ("UNSUPPORTED_NODE", "UNSUPPORTED_GRAPH", "Plugin not found")
_REPLACE = "replace it in the model, or serve this model with --engine onnxruntime"
_EXPORT_AGAIN = "the graph contradicts itself: export the model again"


def parse(trt: Any, messages: Messages, network: Any, path: Path) -> GraphSpecs:  # noqa: ANN401
    """Fill an empty network from an ONNX file, external data beside it.

    Returns:
        What goes in and comes out, in graph order.

    Raises:
        EngineError: the file is no ONNX, or an operator, a datatype or a shape cannot be used; it is named.
    """
    specs = read_graph_specs(path)  # TensorRT takes some files that are no ONNX at all for empty networks
    parser = trt.OnnxParser(network, messages.logger)
    if not parser.parse_from_file(str(path)):
        raise EngineError(f"{path} cannot be built: {_reasons(parser, messages)}")
    if not network.num_outputs:
        raise EngineError(f"{path} holds no network: an ONNX file with at least one output is needed")
    _check_kept(path, "input", specs.inputs, [network.get_input(i) for i in range(network.num_inputs)])
    _check_kept(path, "output", specs.outputs, [network.get_output(i) for i in range(network.num_outputs)])
    return specs


def _reasons(parser: Any, messages: Messages) -> str:  # noqa: ANN401
    found = [_reason(parser.get_error(i)) for i in range(parser.num_errors)]
    return "; ".join(dict.fromkeys(found)) or messages.first_error()


def _reason(error: Any) -> str:  # noqa: ANN401
    text = f"{error}"
    kind, name = error.node_operator(), error.node_name()
    if not kind:
        return f"{_said(error.desc())} ({error.func()})"
    node = f"operator {kind}" + (f" (node '{name}')" if name else f" (node {error.node()})")
    if any(word in text for word in _UNSUPPORTED):
        return f"{node} is not supported by TensorRT; {_REPLACE}"
    return f"{node}: {_said(error.desc())}; {_EXPORT_AGAIN}"


def _said(text: str) -> str:
    """`Assertion failed: (a == b): what it means.` -> `what it means`, where a meaning is given."""
    if text.startswith("Assertion failed: "):
        text = text.rpartition("): ")[2] or text
    return text.removeprefix("Assertion failed: ").strip(" .")


def _check_kept(path: Path, role: str, specs: tuple[TensorSpec, ...], tensors: list[Any]) -> None:
    """Refuse what TensorRT silently turns into something else, as it does FP64 into FP32."""
    by_name = {tensor.name: tensor.dtype.name for tensor in tensors}
    for spec in specs:
        datatype = DATATYPES.get(by_name.get(spec.name, ""))
        if datatype != spec.datatype:
            found = by_name.get(spec.name, "nothing")
            raise EngineError(
                f"{path}: {role} '{spec.name}' is {spec.datatype}, of which TensorRT makes {found}; allowed "
                f"are {', '.join(DATATYPES.values())}: cast it inside the model"
            )
