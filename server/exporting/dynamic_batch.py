"""Giving a graph of fixed batch size a batch of any size, if it then still computes the same.

Two things fix the batch: the declared shape of the input, and constants that Reshape takes, such as [1, -1]
in front of the classifier. Both are rewritten on a copy, and the copy is believed only after it has answered
batches of 1, 2 and more exactly as the original answered its own batches.
"""

from __future__ import annotations

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, helper, numpy_helper

from server.engines.engine import Array
from server.errors import ExportError
from server.exporting.candidate import Runner
from server.exporting.parity import largest_difference
from server.exporting.samples import noise_items
from server.exporting.sessions import runner_of
from server.onnx_graph import describe, graph_inputs, shape_of

_TOLERANCE = 1e-4  # of the largest value; the kernels for another batch size may add in another order


def fixed_batch(model: ModelProto) -> int | None:
    """Return the batch size that all inputs declare; None when it is open.

    Raises:
        ExportError: the inputs disagree, or one has no dimensions at all.
    """
    firsts = set()
    for value in graph_inputs(model):
        shape = shape_of(value)
        if not shape:
            raise ExportError(f"input {describe(value)} has no dimensions, so it can hold no batch")
        firsts.add(shape[0] if isinstance(shape[0], int) else None)
    if len(firsts) > 1:
        shown = "; ".join(map(describe, graph_inputs(model)))
        raise ExportError(f"the inputs do not agree on their first dimension, the batch: {shown}")
    return firsts.pop()


def with_dynamic_batch(model: ModelProto, batch: int) -> ModelProto | None:
    """Return a copy of `model`, fixed at `batch`, that takes any batch; None when none computes the same."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for value in graph_inputs(copy):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for value in copy.graph.output:
        shape = value.type.tensor_type.shape
        if shape.dim and shape.dim[0].dim_value == batch:
            shape.dim[0].dim_param = "batch"
    del copy.graph.value_info[:]
    _open_reshapes(copy, batch)
    return copy if _computes_the_same(copy, model, batch) else None


def with_fixed_batch(model: ModelProto, batch: int) -> ModelProto:
    """Return a copy whose inputs and outputs declare `batch` as their first dimension."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for value in (*graph_inputs(copy), *copy.graph.output):
        if shape_of(value):
            value.type.tensor_type.shape.dim[0].dim_value = batch
    del copy.graph.value_info[:]
    return copy


def in_chunks(run: Runner, batch: int) -> Runner:
    """Let a network of fixed batch take any number of items: in chunks, the last filled up by repetition."""

    def run_all(inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        count = len(inputs[0])
        rows = [np.arange(start, start + batch) % count for start in range(0, count, batch)]
        answers = [run(tuple(given[chosen] for given in inputs)) for chosen in rows]
        return tuple(np.concatenate(parts)[:count] for parts in zip(*answers, strict=True))

    return run_all


def _open_reshapes(model: ModelProto, batch: int) -> None:
    """Replace a leading `batch` in constant Reshape targets by 0, which means: as the input has it."""
    targets = _constants(model)
    for node in model.graph.node:
        target = targets.get(node.input[1]) if node.op_type == "Reshape" and len(node.input) > 1 else None
        if target is not None and target.size > 1 and target[0] == batch and 0 not in target[1:]:
            _retarget(model, node, np.concatenate([[0], target[1:]]))


def _retarget(model: ModelProto, node: NodeProto, target: Array) -> None:
    name = f"{node.output[0]}_any_batch"
    model.graph.initializer.append(numpy_helper.from_array(target.astype(np.int64), name))
    node.input[1] = name
    kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
    del node.attribute[:]
    node.attribute.extend(kept)


def _constants(model: ModelProto) -> dict[str, Array]:
    found = {
        t.name: numpy_helper.to_array(t)
        for t in model.graph.initializer
        if len(t.dims) == 1 and t.dims[0] < 9
    }
    for node in model.graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.type == AttributeProto.TENSOR:
                found[node.output[0]] = numpy_helper.to_array(attribute.t)
            elif attribute.name == "value_ints":
                found[node.output[0]] = np.array(helper.get_attribute_value(attribute))
    return found


def _computes_the_same(copy: ModelProto, original: ModelProto, batch: int) -> bool:
    items = noise_items(original, 2 * batch if batch > 1 else 3)
    try:
        meant = in_chunks(runner_of(original), batch)(items)
        run = runner_of(copy)
        return all(_same(run(tuple(given[:n] for given in items)), meant, n) for n in (1, 2, len(items[0])))
    except Exception:  # noqa: BLE001, RUF100 - whatever the copy cannot do, the fixed original still can
        return False


def _same(got: tuple[Array, ...], meant: tuple[Array, ...], count: int) -> bool:
    wanted = tuple(out[:count] for out in meant)
    if [out.shape for out in got] != [out.shape for out in wanted]:
        return False
    largest = max(float(np.abs(out.astype(np.float64)).max(initial=0.0)) for out in wanted)
    return largest_difference(got, wanted) <= _TOLERANCE * largest
