"""From a network's name or file and a precision to the ONNX file that every engine is given."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from bench.naming import network_name
from server.errors import ConfigError, ExportError
from server.export import Exported, export_model
from server.exporting.builtin_models import BUILTIN_MODELS
from server.exporting.complaints import in_a_line
from server.exporting.precision.kinds import Precision, precision_of
from server.exporting.progress import Progress
from server.exporting.request import ExportRequest
from server.onnx_graph import graph_inputs


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """A network in a precision.

    Args:
        network: its name.
        precision: what it computes in.
        path: the ONNX file.
        sha256: of the file.
        agreement: how far it answers as in float32, from 0 to 1; None where nothing was converted here.
        fidelity: the same in words, with the differences and what it was judged on; empty likewise.
        notes: what a person should know.
    """

    network: str
    precision: str
    path: Path
    sha256: str
    agreement: float | None = None
    fidelity: str = ""
    notes: tuple[str, ...] = ()


def network_names(models: tuple[str, ...]) -> dict[str, str]:
    """Return each model by the name that it is shown under. Raises ConfigError for one that is none."""
    names: dict[str, str] = {}
    for model in models:
        name = model if model in BUILTIN_MODELS else _file_name(model)
        if names.setdefault(name, model) != model:
            raise ConfigError(f"{names[name]} and {model} are both called {name}: rename one of them")
    return names


def _file_name(model: str) -> str:
    if not Path(model).is_file():
        raise ConfigError(
            f"{model!r} is neither a network nor a file: give the path of an ONNX file, or one of "
            f"{', '.join(BUILTIN_MODELS)}"
        )
    return network_name(Path(model))


def obtain_network(
    name: str, model: str, precision: Precision | None, folder: Path, progress: Progress
) -> NetworkFile:
    """Return the file, exported below `folder` unless it was before, or the model's own where that will do.

    Args:
        name: of the network.
        model: what to export: a built-in name or the path of an ONNX file.
        precision: None: float32 of a built-in network, a file as it is.
        folder: a model repository of the comparison's own.
        progress: told about each long step.

    Raises:
        ExportError: it cannot be had in this precision, and why.
    """
    if model not in BUILTIN_MODELS:
        own = _as_it_is(name, Path(model))
        if precision in (None, own.precision):
            return own
    wanted = precision or Precision.FP32
    origin = model if model in BUILTIN_MODELS else _sha256(Path(model))
    kept = folder / f"{name}-{wanted}.json"
    found = _read(kept, origin)
    return found if found is not None else _exported(name, model, wanted, origin, kept, progress)


def _as_it_is(name: str, path: Path) -> NetworkFile:
    try:
        graph = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's errors share no base
        raise ExportError(f"{path} is not an ONNX file: {in_a_line(error)}") from error
    if not graph_inputs(graph):
        raise ExportError(f"{path} holds no network: its graph has no input")
    return NetworkFile(name, precision_of(graph), path, _sha256(path))


def _exported(
    name: str, model: str, precision: Precision, origin: str, kept: Path, progress: Progress
) -> NetworkFile:
    request = ExportRequest(
        model=model,
        repository=kept.parent,
        name=f"{name}-{precision}",
        version=1,
        force=True,  # how far it is from float32 is a result here
        precision=precision,
    )
    network = _described(name, export_model(request, progress))
    table = {**asdict(network), "path": str(network.path.relative_to(kept.parent)), "origin": origin}
    kept.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return network


def _described(name: str, exported: Exported) -> NetworkFile:
    rewritten = exported.rewritten
    return NetworkFile(
        network=name,
        precision=exported.precision,
        path=exported.path,
        sha256=_sha256(exported.path),
        agreement=None if rewritten is None else rewritten.fidelity.agreement,
        fidelity="" if rewritten is None else f"{rewritten.fidelity}; judged on {rewritten.judged_on}",
        notes=exported.notes,
    )


def _read(kept: Path, origin: str) -> NetworkFile | None:
    """A file that is missing, cut short, or of another origin counts as not there."""
    try:
        table: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        if table.pop("origin") != origin:
            return None
        path, notes = kept.parent / table.pop("path"), tuple(table.pop("notes"))
        network = NetworkFile(**table, path=path, notes=notes)
        return network if _sha256(path) == network.sha256 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
