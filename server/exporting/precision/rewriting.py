"""Replacing a float32 file by the same network in lower precision, if that is true enough to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from server.errors import ExportError
from server.exporting.baking import bake_uint8
from server.exporting.candidate import Candidate
from server.exporting.onnx_source import check_onnx
from server.exporting.precision.fidelity import Fidelity
from server.exporting.precision.kept import Kept
from server.exporting.precision.lowering import check_fidelity, judge, lower
from server.exporting.progress import Progress
from server.exporting.request import ExportRequest
from server.exporting.sessions import open_runner, save_model
from server.onnx_graph import describe, graph_inputs


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What became of the file.

    Args:
        precision: what it is in now.
        fidelity: how true it is to float32.
        judged_on: on what, for people.
        calibrated_on: likewise; empty when it was not calibrated.
        kept: the nodes that stay in float32 although their kind does not.
        float32_bytes: size of the float32 file.
        file_bytes: size of the file now.
    """

    precision: str
    fidelity: Fidelity
    judged_on: str
    calibrated_on: str
    kept: tuple[Kept, ...]
    float32_bytes: int
    file_bytes: int

    def record(self) -> Mapping[str, str | int | float]:
        """Return what config.toml shall remember."""
        return {
            "agreement": round(self.fidelity.agreement, 4),
            "fidelity": str(self.fidelity),
            "judged_on": self.judged_on,
            **({"calibrated_on": self.calibrated_on} if self.calibrated_on else {}),
            "kept_in_float32": ", ".join(node.name for node in self.kept),
            "float32_bytes": self.float32_bytes,
            "bytes": self.file_bytes,
        }


def rewrite(candidate: Candidate, request: ExportRequest, path: Path, progress: Progress) -> Rewritten | None:
    """Replace the float32 file at `path` as the request wants it; None when it is in that precision already.

    Raises:
        ExportError: it cannot be converted, or is too far from float32 and the request does not force it.
    """
    original, float32_bytes = open_runner(path), _size(path)
    lowered = lower(candidate, request, progress)
    if lowered is None:
        return None
    model = bake_uint8(lowered.model, candidate.preprocessing) if request.uint8 else lowered.model
    _check_edges(lowered.model, candidate.model)
    _replace(model, path)
    with progress.step(f"comparing {lowered.precision} with float32"):
        fidelity = judge(lowered, candidate, open_runner(path), original, uint8=request.uint8)
    check_fidelity(fidelity, lowered, request)
    return Rewritten(
        precision=lowered.precision,
        fidelity=fidelity,
        judged_on=lowered.judged_origin,
        calibrated_on=lowered.calibrated_origin,
        kept=lowered.kept,
        float32_bytes=float32_bytes,
        file_bytes=_size(path),
    )


def _check_edges(lowered: ModelProto, original: ModelProto) -> None:
    """See that clients need not know: what goes in and comes out is as before."""
    before, after = (_edges(original), _edges(lowered))
    if before != after:
        raise ExportError(f"the conversion changed the network's inputs or outputs from {before} to {after}")


def _edges(model: ModelProto) -> Sequence[str]:
    return [describe(value) for value in (*graph_inputs(model), *model.graph.output)]


def _replace(model: ModelProto, path: Path) -> None:
    for old in _files(path):
        old.unlink()
    save_model(model, path)
    check_onnx(path)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in _files(path))


def _files(path: Path) -> list[Path]:
    """Return the graph, and the weights beside it where there are any."""
    return [file for file in (path, path.with_name(f"{path.name}.data")) if file.exists()]
