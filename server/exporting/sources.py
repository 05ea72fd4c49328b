"""From what a person named to a candidate: the three kinds of source."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from onnx import ModelProto

from server.engines.engine import Array
from server.errors import ExportError
from server.exporting.builtin_models import BUILTIN_MODELS
from server.exporting.candidate import Candidate
from server.exporting.complaints import in_a_line
from server.exporting.dynamic_batch import fixed_batch, in_chunks, with_dynamic_batch, with_fixed_batch
from server.exporting.onnx_source import fix_input_shape, load_onnx, set_output_shapes
from server.exporting.parity import check_batching, check_repeatable, check_shapes
from server.exporting.preprocessing import Preprocessing
from server.exporting.progress import Progress
from server.exporting.request import ExportRequest, SourceKind, requested_labels, source_kind
from server.exporting.samples import Samples, noise_items
from server.exporting.sessions import runner_of
from server.exporting.torch_export import to_onnx, torch_runner, try_forward
from server.exporting.torch_source import TorchModule, in_float32, load_model, load_state_dict

_USUAL_SHAPE = (3, 224, 224)
_PROBES = 3


def obtain(request: ExportRequest, progress: Progress, directory: Path) -> Candidate:
    """Load what `request.model` names and bring it to ONNX, with what the request says about it.

    Raises:
        ExportError: naming what stood in the way.
    """
    sources = {
        SourceKind.BUILTIN: _from_builtin,
        SourceKind.FACTORY: _from_factory,
        SourceKind.ONNX: _from_onnx,
    }
    labels = None if request.labels is None else requested_labels(request.labels)
    candidate = sources[source_kind(request)](request, progress, directory)
    return replace(
        candidate,
        labels=candidate.labels if labels is None else labels,
        preprocessing=request.preprocessing or candidate.preprocessing,
        resize=request.resize or candidate.resize,
    )


def _from_builtin(request: ExportRequest, progress: Progress, directory: Path) -> Candidate:
    del directory  # built-in models are found by name alone
    builtin = BUILTIN_MODELS[request.model]
    with progress.step(f"loading {request.model} and its weights"):
        module, _ = in_float32(builtin.load())
    provenance = (("source", request.model), ("weights", builtin.weights), ("network", builtin.source))
    return replace(
        _from_torch(module, builtin.input_shape, progress, provenance),
        preprocessing=builtin.preprocessing,
        resize=builtin.resize,
        labels=builtin.labels(),
        notes=builtin.notes,
    )


def _from_factory(request: ExportRequest, progress: Progress, directory: Path) -> Candidate:
    with progress.step(f"loading {request.model}"):
        module, made_in = in_float32(load_model(request.model, directory))
        if request.state_dict is not None:
            load_state_dict(module, request.state_dict)
    notes = (
        [] if request.state_dict else ["no --state-dict: the weights are those the factory gave the model"]
    )
    notes += [f"the model was made in {made_in}: it is exported in float32"] if made_in else []
    provenance = [("source", request.model)]
    provenance += [("state_dict", request.state_dict.name)] if request.state_dict else []
    shape = request.input_shape or _USUAL_SHAPE
    return replace(_from_torch(module, shape, progress, tuple(provenance), made_in), notes=tuple(notes))


def _from_torch(
    module: TorchModule,
    shape: tuple[int, ...],
    progress: Progress,
    provenance: tuple[tuple[str, str], ...],
    made_in: str = "",
) -> Candidate:
    module = module.eval()
    with progress.step("trying the model in PyTorch"):
        try_forward(module, shape, made_in)
    with progress.step("exporting to ONNX"):
        model = to_onnx(module, shape)
    return Candidate(
        model=model,
        fixed_batch=None,
        reference=torch_runner(module),
        reference_name="PyTorch",
        preprocessing=Preprocessing(),
        provenance=(*provenance, ("torch", installed_version("torch"))),
    )


def _from_onnx(request: ExportRequest, progress: Progress, directory: Path) -> Candidate:
    del directory  # the path says where the file is
    with progress.step(f"reading {request.model}"):
        model = load_onnx(Path(request.model))
        if request.input_shape is not None:
            fix_input_shape(model, request.input_shape)
        batch = fixed_batch(model)
    with progress.step("trying batches of several sizes"):
        candidate = _open_batch(model) if batch is None else _fixed_batch(model, batch)
    return replace(candidate, provenance=(("source", Path(request.model).name),))


def _open_batch(model: ModelProto) -> Candidate:
    """Believe an open batch dimension only after batches of several sizes went through."""
    items = noise_items(model, _PROBES)
    run = runner_of(model)
    try:
        check_batching(run, Samples(items, items, photographs=False))
        answers = run(items)
    except Exception:  # noqa: BLE001, RUF100 - the file promises more than it does; batches of 1 may still work
        return _fixed_batch(with_fixed_batch(model, 1), 1)
    set_output_shapes(model, [answer.shape for answer in answers], None)
    return _onnx_candidate(model, None, model)


def _fixed_batch(model: ModelProto, batch: int) -> Candidate:
    answers = _first_answers(model, batch)
    opened = with_dynamic_batch(model, batch)
    kept = opened or model
    set_output_shapes(kept, [answer.shape for answer in answers], None if opened else batch)
    candidate = _onnx_candidate(kept, None if opened else batch, model)
    if opened:
        note = f"the graph was made for batches of {batch}: it now takes any batch, with the same answers"
        return replace(candidate, reference=in_chunks(candidate.reference, batch), notes=(note,))
    note = (
        f"the graph only works with its own shape (first dimension {batch}): it is kept so, and the server "
        "runs one request at a time; export it with a dynamic batch to let the server batch"
    )
    return replace(candidate, notes=(note,))


def _first_answers(model: ModelProto, batch: int) -> tuple[Array, ...]:
    items = noise_items(model, batch)
    try:
        run = runner_of(model)
        check_repeatable(run, items)
        answers = run(items)
        check_shapes(answers, run(tuple(map(np.zeros_like, items))))
        return answers
    except ExportError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base; they name the node and the shapes
        raise ExportError(f"the graph does not run: {in_a_line(error)}") from error


def _onnx_candidate(model: ModelProto, batch: int | None, original: ModelProto) -> Candidate:
    return Candidate(
        model=model,
        fixed_batch=batch,
        reference=runner_of(original),
        reference_name="the file given",
        preprocessing=Preprocessing(),
    )


def installed_version(package: str) -> str:
    """The version of a package, or that there is none: a checkout runs without being installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
