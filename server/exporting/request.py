"""What a person asked to be exported."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from server.errors import ExportError, InvalidArgument
from server.exporting.builtin_models import BUILTIN_MODELS
from server.exporting.precision.kinds import Precision
from server.exporting.preprocessing import Preprocessing
from server.models.repository import check_model_name
from server.models.repository_files import MAX_BATCH, MAX_RESIZE


class SourceKind(StrEnum):
    """Where a model comes from."""

    BUILTIN = "built-in"
    FACTORY = "module:factory"
    ONNX = "ONNX file"


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export and where to.

    Args:
        model: a built-in name, `module:factory`, or the path of an ONNX file.
        repository: root of the model repository; made if missing.
        name: the entry's name; None: derived from `model`.
        version: the entry's version; None: the next free one.
        uint8: bake the preprocessing in and take UINT8 `[batch, height, width, channels]`.
        state_dict: weights for a `module:factory`.
        input_shape: (channels, height, width) for a `module:factory`, or for an ONNX file without them.
        max_batch: largest batch that the server shall use; None: up to the engine.
        labels: file with one class name a line.
        preprocessing: from pixels to the network's input; None: the built-in's own, or pixel / 255.
        resize: pixels of the shorter side before the centre crop of encoded pictures.
        force: overwrite the version if it exists, and write it however far from float32 it is.
        precision: what a float32 network is converted to; None: it is left as it is.
        calibration: directory of pictures to calibrate and judge on; None: scikit-image's photographs.
        least_agreement: from 0 to 1; a network in lower precision that agrees less with float32 is refused.
    """

    model: str
    repository: Path
    name: str | None = None
    version: int | None = None
    uint8: bool = False
    state_dict: Path | None = None
    input_shape: tuple[int, ...] | None = None
    max_batch: int | None = None
    labels: Path | None = None
    preprocessing: Preprocessing | None = None
    resize: int | None = None
    force: bool = False
    precision: Precision | None = None
    calibration: Path | None = None
    least_agreement: float = 0.95

    def __post_init__(self) -> None:
        if not 0 <= self.least_agreement <= 1:
            raise ExportError(f"--least-agreement must be from 0 to 1, got {self.least_agreement}")
        for flag, value, most in (
            ("--max-batch", self.max_batch, MAX_BATCH),
            ("--resize", self.resize, MAX_RESIZE),
        ):
            if value is not None and not 1 <= value <= most:
                raise ExportError(f"{flag} must be from 1 to {most}, got {value}")
        if self.calibration is not None and self.precision not in (Precision.FP16, Precision.INT8):
            raise ExportError(
                "--calibration goes with --precision int8 (to calibrate on) or fp16 (to judge on)"
            )


def source_kind(request: ExportRequest) -> SourceKind:
    """Tell what `request.model` names, and refuse flags that mean nothing for it.

    Raises:
        ExportError: it names nothing, or a flag does not go with it.
    """
    kind = _kind(request.model)
    if request.state_dict is not None and kind is not SourceKind.FACTORY:
        raise ExportError(
            f"--state-dict goes with module:factory; {request.model} is a {kind} with its own weights"
        )
    if request.input_shape is not None and kind is SourceKind.BUILTIN:
        shape = ",".join(map(str, BUILTIN_MODELS[request.model].input_shape))
        raise ExportError(f"--input-shape goes with other models; {request.model} takes {shape}")
    return kind


def _kind(model: str) -> SourceKind:
    if model in BUILTIN_MODELS:
        return SourceKind.BUILTIN
    if model.endswith(".onnx") or Path(model).is_file():
        return SourceKind.ONNX
    module, _, factory = model.partition(":")
    if all(part.isidentifier() for part in [*module.split("."), *factory.split(".")]):
        return SourceKind.FACTORY
    raise ExportError(
        f"{model!r} is not a model: give a built-in name ({', '.join(BUILTIN_MODELS)}), "
        "module:factory for a PyTorch model, or the path of an ONNX file"
    )


def entry_name(request: ExportRequest) -> str:
    """Return the name of the repository entry: as asked, or the built-in's, the factory's or the file's.

    Raises:
        ExportError: it cannot be the name of a model.
    """
    named = {
        SourceKind.BUILTIN: request.model,
        SourceKind.FACTORY: request.model.rpartition(":")[2].replace(".", "-"),
        SourceKind.ONNX: Path(request.model).stem,
    }
    try:
        return check_model_name(request.name if request.name is not None else named[source_kind(request)])
    except InvalidArgument as error:
        raise ExportError(f"{error}; choose one with --name") from error


def requested_labels(path: Path) -> tuple[str, ...]:
    """Read a file of class names, one a line. Raises `ExportError` when it cannot be read or is empty."""
    try:
        labels = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().split("\n"))
    except OSError as error:
        raise ExportError(f"--labels {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ExportError(
            f"--labels {path} is not UTF-8 text: {error.reason} at byte {error.start}"
        ) from error
    if labels == ("",):
        raise ExportError(f"--labels {path} is empty: it must hold one class name a line")
    return labels
