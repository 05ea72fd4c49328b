"""PyTorch to ONNX with a dynamic batch, and telling which layer, operator or shape was the trouble."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from itertools import chain, count
from typing import Any

import numpy as np
from onnx import ModelProto

from server.engines.engine import Array
from server.errors import ExportError
from server.exporting.candidate import Runner
from server.exporting.complaints import USERS_CODE_RAISES, said, told
from server.exporting.served_tensors import check_datatypes
from server.exporting.torch_source import TorchModule, import_torch
from server.onnx_graph import describe, shape_of

INPUT_NAME = "input"
OUTPUT_NAME = "output"

_OPERATOR = re.compile(r"OpOverload\(op='([^']+)'")
_SOURCE_LINE = re.compile(r'File "([^"]+)", line (\d+), in \w+\n\s*(.+)')


def try_forward(module: TorchModule, shape: tuple[int, ...], made_in: str = "") -> None:
    """Run a batch of two zeros `[2, *shape]` through the network before anything slow begins.

    Args:
        module: in float32.
        shape: of one picture.
        made_in: the precision that the module was in before; empty: float32.

    Raises:
        ExportError: naming the layer that refused, or an answer that is not made of tensors.
    """
    torch = import_torch()
    with _entered_layers(module) as layers:
        try:
            with torch.no_grad():  # what lazy layers make now is exported: it must be ordinary tensors
                outputs = module(torch.zeros(2, *shape))
        except USERS_CODE_RAISES as error:
            where = f"layer {layers[-1]} of the model" if layers else "the model"
            raise ExportError(
                f"{where} does not take an input of shape [2, {', '.join(map(str, shape))}]: "
                f"{said(error)}; --input-shape C,H,W must be what the model was made for{_cast_hint(made_in)}"
            ) from error
    flatten(outputs)


def _cast_hint(made_in: str) -> str:
    if not made_in:
        return ""
    return f", and it is exported in float32, so its code must not cast to {made_in} by itself"


def to_onnx(module: TorchModule, shape: tuple[int, ...]) -> ModelProto:
    """Export for input `[batch, *shape]`, float32, with the batch as a symbol.

    Raises:
        ExportError: naming the operator without ONNX counterpart, or the line that depends on the data.
    """
    torch = import_torch()
    example = torch.randn(2, *shape)  # two, since torch.export takes a one for a constant
    try:
        names = output_names(module(example))
        with _silenced():
            program = torch.onnx.export(
                module,
                (example,),
                input_names=[INPUT_NAME],
                output_names=names,
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                verbose=False,
            )
        model: ModelProto = program.model_proto
    except USERS_CODE_RAISES as error:
        raise ExportError(f"PyTorch cannot export the model: {diagnose(error)}") from error
    check_datatypes(model)
    _check_outputs(model)
    _forget_sources(model)
    return model


def torch_runner(module: TorchModule) -> Runner:
    """Return a function that runs the module itself."""
    torch = import_torch()

    def run(inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        copies = [torch.from_numpy(np.array(given, order="C")) for given in inputs]  # it may work in place
        try:
            with torch.inference_mode():
                outputs = module(*copies)
        except USERS_CODE_RAISES as error:
            raise ExportError(
                f"the model fails in PyTorch on a batch of {len(inputs[0])}: {said(error)}"
            ) from error
        return tuple(tensor.numpy() for _, tensor in flatten(outputs))

    return run


def output_names(outputs: object) -> list[str]:
    """Name what a module answered; what is called as the input is, or as another output, gets a number."""
    names: list[str] = []
    for name, _ in flatten(outputs):
        taken = {INPUT_NAME, *names}
        numbered = (f"{name}_{number}" for number in count(2))
        names.append(next(one for one in chain([name], numbered) if one not in taken))
    return names


def flatten(outputs: object, name: str = OUTPUT_NAME) -> list[tuple[str, Any]]:
    """Return (name, tensor) for what a module answered: a tensor, or sequences and mappings of them."""
    if isinstance(outputs, import_torch().Tensor):
        if outputs.is_complex():
            raise ExportError("the model answers with complex numbers, which ONNX graphs do not")
        return [(name, outputs)]
    if isinstance(outputs, Mapping):
        return [pair for key, value in outputs.items() for pair in flatten(value, str(key))]
    if isinstance(outputs, (list, tuple)):
        return [pair for i, value in enumerate(outputs) for pair in flatten(value, f"{name}_{i}")]
    raise ExportError(f"the model answers with a {type(outputs).__name__}; only tensors can be exported")


def diagnose(error: BaseException) -> str:
    """Say in one line what stopped the exporter: an operator, a line of the model, or the first complaint."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    told = "\n".join(map(str, chain))
    operator = _OPERATOR.search(told)
    if operator:
        return f"operator {operator[1]} has no ONNX counterpart; replace it in the model"
    line = _SOURCE_LINE.findall(str(chain[-1]))
    where = f" at {line[-1][0]}:{line[-1][1]} `{line[-1][2].strip()}`" if line else ""
    if "data-dependent" in told:
        return f"control flow or a shape depends on the input's values{where}; use tensor operations instead"
    return f"{_first_line(chain[-1])}{where}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) if lines and isinstance(error, Exception) else told(error)


def _check_outputs(model: ModelProto) -> None:
    for value in model.graph.output:
        shape = shape_of(value)
        if not shape or isinstance(shape[0], int):
            raise ExportError(
                f"the output {describe(value)} does not begin with the batch: the model fixes or drops it"
            )
        if any(not isinstance(dim, int) for dim in shape[1:]):
            raise ExportError(
                f"the output {describe(value)} has a shape that depends on the input; only the batch may"
            )


def _forget_sources(model: ModelProto) -> None:
    """Take out the stack traces that the exporter notes at every node: they hold paths of this machine."""
    graph = model.graph
    things: list[Any] = [*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for thing in things:
        kept = [prop for prop in thing.metadata_props if not prop.key.startswith("pkg.")]
        del thing.metadata_props[:]
        thing.metadata_props.extend(kept)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Hold back the exporter's own chatter; what matters in it comes again as the exception."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(io.StringIO()):
                yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _entered_layers(module: TorchModule) -> Iterator[list[str]]:
    """Keep the list of layers that were entered and not left: the last is the innermost at work."""
    entered: list[str] = []
    hooks = []
    for name, layer in module.named_modules():
        if name:
            shown = f"{name} ({type(layer).__name__})"
            hooks.append(layer.register_forward_pre_hook(lambda *_, shown=shown: entered.append(shown)))
            hooks.append(layer.register_forward_hook(lambda *_: _drop_last(entered)))
    try:
        yield entered
    finally:
        for hook in hooks:
            hook.remove()


def _drop_last(entered: list[str]) -> None:
    entered.pop()
