"""From a CNN to an entry of the model repository: obtain it, prepare it, compare it, put it in place."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from server.errors import ExportError
from server.exporting.baking import bake_uint8, image_shape
from server.exporting.candidate import Candidate
from server.exporting.onnx_source import check_onnx
from server.exporting.parity import Parity, check_batching, check_repeatable, compare
from server.exporting.precision.kinds import precision_of
from server.exporting.precision.rewriting import Rewritten, rewrite
from server.exporting.progress import Progress
from server.exporting.request import ExportRequest, entry_name
from server.exporting.samples import make_samples
from server.exporting.sessions import open_runner, save_model
from server.exporting.sources import installed_version, obtain
from server.exporting.writing import ConfigTable, choose_version, place, staging, toml
from server.models.repository import MODEL_FILE
from server.onnx_graph import describe, graph_inputs, shape_of


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Args:
        name: the entry's name.
        version: its version.
        path: the ONNX file.
        inputs: the graph's inputs, described.
        outputs: the graph's outputs, described.
        preprocessing: the formula baked in; None when clients apply it themselves.
        accepts_pictures: whether clients may send encoded JPEG and PNG.
        parity: how it compares with the original.
        reference_name: what the original was.
        labels: number of class names.
        notes: what else a person should know.
        precision: what the network computes in.
        rewritten: how it was converted from float32; None when it was not.
    """

    name: str
    version: int
    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    preprocessing: str | None
    accepts_pictures: bool
    parity: Parity
    reference_name: str
    labels: int
    notes: tuple[str, ...]
    precision: str
    rewritten: Rewritten | None


def export_model(request: ExportRequest, progress: Progress, directory: Path | None = None) -> Exported:
    """Export a model into the repository.

    Args:
        request: what to export and where to.
        progress: told about each long step.
        directory: where `module:factory` is looked for first; None: the current directory.

    Raises:
        ExportError: naming the operator, shape, file or flag that was the trouble. Nothing was written then.
    """
    name = entry_name(request)
    number = choose_version(request.repository, name, request.version, force=request.force)
    candidate = obtain(request, progress, directory or Path.cwd())
    model = bake_uint8(candidate.model, candidate.preprocessing) if request.uint8 else candidate.model
    _check_labels(model, candidate.labels)
    with staging(request.repository) as stage:
        staged = stage / str(number)
        staged.mkdir()
        parity = _write_and_verify(candidate, model, staged / MODEL_FILE, progress, uint8=request.uint8)
        rewritten = rewrite(candidate, request, staged / MODEL_FILE, progress)
        config = _config(request, candidate, staged / MODEL_FILE, parity, rewritten)
        place(staged, request.repository, name, number, config, _lines(candidate.labels))
    path = request.repository / name / str(number) / MODEL_FILE
    return _report(request, candidate, model, parity, name, path, rewritten)


def _write_and_verify(
    candidate: Candidate, model: ModelProto, path: Path, progress: Progress, *, uint8: bool
) -> Parity:
    with progress.step("writing and checking the ONNX file"):
        save_model(model, path)
        check_onnx(path)
        written = open_runner(path)
    with progress.step(f"comparing with {candidate.reference_name}"):
        samples = make_samples(
            candidate.model, candidate.preprocessing, uint8=uint8, batch=candidate.fixed_batch
        )
        try:
            check_repeatable(written, samples.given)
            check_repeatable(candidate.reference, samples.original)
            if candidate.fixed_batch is None:
                check_batching(written, samples)
            return compare(written, candidate.reference, samples)
        except ExportError:
            raise
        except (
            Exception
        ) as error:  # ONNX Runtime's exceptions share no base; they name the node and the shapes
            raise ExportError(f"the exported graph does not run: {error}") from error


def _check_labels(model: ModelProto, labels: tuple[str, ...]) -> None:
    """Refuse class names that cannot belong to the scores."""
    shape = shape_of(model.graph.output[0])
    classes = shape[1] if shape and len(shape) == 2 else None
    if labels and isinstance(classes, int) and classes != len(labels):
        raise ExportError(
            f"there are {len(labels)} labels, but {describe(model.graph.output[0])} has {classes} classes"
        )


def _lines(labels: tuple[str, ...]) -> str | None:
    return "".join(f"{label}\n" for label in labels) or None


def _accepts_pictures(request: ExportRequest, candidate: Candidate) -> bool:
    size = image_shape(candidate.model)
    return request.uint8 and size is not None and size[0] == 3


def _precision(candidate: Candidate, rewritten: Rewritten | None) -> str:
    return precision_of(candidate.model) if rewritten is None else rewritten.precision


def _config(
    request: ExportRequest, candidate: Candidate, path: Path, parity: Parity, rewritten: Rewritten | None
) -> str:
    (first, *_) = graph_inputs(candidate.model)
    size = image_shape(candidate.model) or (0, 0, 0)
    pictures: ConfigTable = {"input": first.name, "resize": candidate.resize or min(size[1:])}
    export: ConfigTable = {
        **dict(candidate.provenance),
        "boulton": installed_version("boulton"),
        "onnx": installed_version("onnx"),
        "opset": next((entry.version for entry in candidate.model.opset_import if not entry.domain), 0),
        "precision": _precision(candidate, rewritten),
        "input": "uint8" if request.uint8 else "float32",
        "preprocessing": str(candidate.preprocessing),
        "parity_reference": candidate.reference_name,
        "parity": str(parity),
        **({} if rewritten is None else rewritten.record()),
        "sha256": _sha256(path),
    }
    top: ConfigTable = {} if request.max_batch is None else {"max_batch_size": request.max_batch}
    image = pictures if _accepts_pictures(request, candidate) else {}
    return toml({"": top, "image": image, "export": export})


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _report(
    request: ExportRequest,
    candidate: Candidate,
    model: ModelProto,
    parity: Parity,
    name: str,
    path: Path,
    rewritten: Rewritten | None,
) -> Exported:
    outside = path.with_name(f"{path.name}.data")
    apart = (
        (f"the weights are over 2 GB and lie beside the graph in {outside.name}",) if outside.exists() else ()
    )
    return Exported(
        name=name,
        version=int(path.parent.name),
        path=path,
        inputs=tuple(map(describe, graph_inputs(model))),
        outputs=tuple(map(describe, model.graph.output)),
        preprocessing=str(candidate.preprocessing) if request.uint8 else None,
        accepts_pictures=_accepts_pictures(request, candidate),
        parity=parity,
        reference_name=candidate.reference_name,
        labels=len(candidate.labels),
        notes=candidate.notes + apart,
        precision=_precision(candidate, rewritten),
        rewritten=rewritten,
    )
