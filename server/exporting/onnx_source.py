"""Taking in an existing ONNX file: whole, checked, with a batch dimension where one can be had."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import ModelProto

from server.errors import ExportError
from server.exporting.complaints import in_a_line
from server.exporting.served_tensors import check_datatypes
from server.onnx_graph import describe, graph_inputs, shape_of, with_implied_shapes

_WEIGHTS_ARE_NO_INPUTS = 4  # since this version of the format


def load_onnx(path: Path) -> ModelProto:
    """Read an ONNX file with all its external data and check it.

    Raises:
        ExportError: missing, damaged, invalid, or its external data is missing or lies elsewhere.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # protobuf raises types of its own
        raise ExportError(f"{path} is not an ONNX file, or is damaged: {in_a_line(error)}") from error
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # onnx raises validation errors for paths that lead out, OSErrors for the rest
        raise ExportError(
            f"the weights of {path} cannot be read: {in_a_line(error)}; they must lie beside it under the "
            "names it gives"
        ) from error
    if not model.graph.output or not graph_inputs(model):
        raise ExportError(f"{path} holds no network: its graph has no input or no output")
    check_datatypes(model)
    _check_declared(model)
    whole = with_implied_shapes(model)
    _check_source(path, whole, changed=whole is not model)
    return _with_fixed_weights(whole)


def _check_declared(model: ModelProto) -> None:
    for value in graph_inputs(model):
        if shape_of(value) is None:
            raise ExportError(
                f"input {describe(value)}: declare its shape in the file, e.g. with "
                "onnx.tools.update_model_dims.update_inputs_outputs_dims"
            )


def _check_source(path: Path, model: ModelProto, *, changed: bool) -> None:
    """The checker takes a file of any size, but what was changed is in memory."""
    if not changed:
        check_onnx(path)
        return
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # as for a file, and ValueError for over 2 GB
        raise ExportError(f"the ONNX checker refuses {path.name}: {in_a_line(error)}") from error


def _with_fixed_weights(model: ModelProto) -> ModelProto:
    """Take the weights off the inputs, in place, where older files list them as well.

    Nobody feeds them; engines compute less beforehand with what might be fed, and whatever is added to such a
    file would have to be listed, too.
    """
    fed = graph_inputs(model)
    if len(fed) < len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(fed)
    model.ir_version = max(model.ir_version, _WEIGHTS_ARE_NO_INPUTS)
    return model


def check_onnx(path: Path) -> None:
    """Run the ONNX checker on a file. Raises `ExportError` with the node at fault."""
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:  # ValidationError, and others for graphs too damaged to validate
        raise ExportError(f"the ONNX checker refuses {path.name}: {in_a_line(error)}") from error


def fix_input_shape(model: ModelProto, shape: tuple[int, ...]) -> None:
    """Set the dimensions after the batch of the only input, in place.

    Raises:
        ExportError: there are several inputs, or the graph says otherwise.
    """
    inputs = graph_inputs(model)
    declared = shape_of(inputs[0]) if len(inputs) == 1 else None
    fits = declared is not None and len(declared) == len(shape) + 1
    if not fits or any(
        isinstance(d, int) and d != s for d, s in zip((declared or ())[1:], shape, strict=True)
    ):
        raise ExportError(
            f"--input-shape {','.join(map(str, shape))} does not fit {'; '.join(map(describe, inputs))}"
        )
    for dim, size in zip(inputs[0].type.tensor_type.shape.dim[1:], shape, strict=True):
        dim.dim_value = size
    for value in model.graph.output:
        _forget_symbols(value.type.tensor_type.shape.dim[1:])
    del model.graph.value_info[:]


def _forget_symbols(dims: Sequence[onnx.TensorShapeProto.Dimension]) -> None:
    for dim in dims:
        if not dim.HasField("dim_value"):
            dim.Clear()


def set_output_shapes(model: ModelProto, shapes: Sequence[tuple[int, ...]], batch: int | None) -> None:
    """Write down, in place, the output dimensions that were seen; the first is `batch`, or open when None."""
    for value, shape in zip(model.graph.output, shapes, strict=True):
        first = "batch" if batch is None else shape[0] if shape else None
        dims = [first, *shape[1:]] if shape else []
        value.type.CopyFrom(onnx.helper.make_tensor_type_proto(value.type.tensor_type.elem_type, dims))
