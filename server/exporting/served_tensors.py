"""What may go into a served network and come out of it: tensors of numbers."""

from __future__ import annotations

from onnx import ModelProto

from server.engines.engine import NUMPY_DTYPES
from server.errors import ExportError
from server.onnx_graph import datatype_of, describe, graph_inputs


def check_datatypes(model: ModelProto) -> None:
    """Refuse a graph that takes or answers with what requests cannot hold, such as sequences and bfloat16.

    Raises:
        ExportError: naming the input or output.
    """
    ends = [("input", value) for value in graph_inputs(model)]
    ends += [("output", value) for value in model.graph.output]
    for role, value in ends:
        if datatype_of(value) not in NUMPY_DTYPES:
            raise ExportError(
                f"{role} {describe(value)} cannot be served: it must be a tensor of one of "
                f"{', '.join(NUMPY_DTYPES)}; let the network cast, or leave it out"
            )
