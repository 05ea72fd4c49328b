"""From a float32 candidate to the same network in lower precision, judged before anybody serves it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

from server.engines.engine import NUMPY_DTYPES, Array
from server.errors import ExportError
from server.exporting.baking import image_shape
from server.exporting.candidate import Candidate, Runner
from server.exporting.dynamic_batch import in_chunks
from server.exporting.precision.fidelity import Fidelity, compare_precision
from server.exporting.precision.half import to_half
from server.exporting.precision.int8 import to_int8
from server.exporting.precision.kept import Kept
from server.exporting.precision.kinds import Precision, precision_of
from server.exporting.precision.pictures import Pictures, gather
from server.exporting.progress import Progress
from server.exporting.request import ExportRequest
from server.exporting.samples import noise_items
from server.onnx_graph import datatype_of, graph_inputs

_NOISE_ITEMS = 64
_ANOTHER = {
    Precision.FP16: "leaving --precision out, which keeps float32",
    Precision.INT8: "other pictures with --calibration, --precision fp16",
}


@dataclass(frozen=True, slots=True)
class Lowered:
    """A network in lower precision, not yet judged.

    Args:
        model: its graph, with the candidate's inputs and outputs.
        precision: which one.
        kept: the nodes that stay in float32.
        judged_on: to judge it on: pixels where the candidate takes pictures, else one array per input.
        pixels: whether `judged_on` are pixels, UINT8 `[n, height, width, channels]`.
        judged_origin: where these are from, for people.
        calibrated_origin: where the pictures that it was calibrated on are from; empty when it was not.
    """

    model: ModelProto
    precision: Precision
    kept: tuple[Kept, ...]
    judged_on: tuple[Array, ...]
    pixels: bool
    judged_origin: str
    calibrated_origin: str


def lower(candidate: Candidate, request: ExportRequest, progress: Progress) -> Lowered | None:
    """Convert the candidate's graph as the request wants it; None when it is in that precision already.

    Raises:
        ExportError: the graph is no float32 graph, cannot be converted, or there is nothing to calibrate on.
    """
    present, wanted = precision_of(candidate.model), request.precision
    if wanted is None or wanted == present:
        return None
    if wanted is Precision.FP32 or present != Precision.FP32:
        raise ExportError(
            f"--precision {wanted}: {request.model} is in {present}, and only float32 graphs are converted; "
            "give the float32 original, or leave --precision out to keep it as it is"
        )
    pictures = _pictures(candidate, request)
    items = noise_items(candidate.model, _NOISE_ITEMS) if pictures is None else (pictures.judged,)
    if wanted is Precision.INT8:
        model, kept = _quantised(candidate, request, pictures, progress)
    else:
        with progress.step("converting to FP16"):
            shown = items if pictures is None else (_normalised(candidate, pictures.calibrating),)
            model, kept = to_half(candidate.model, shown, candidate.fixed_batch)
    return Lowered(model, wanted, kept, items, pictures is not None, *_origins(wanted, pictures))


def judge(
    lowered: Lowered, candidate: Candidate, lower_runner: Runner, original: Runner, *, uint8: bool
) -> Fidelity:
    """Compare the written file with its float32 original.

    Args:
        lowered: what was written.
        candidate: where it came from.
        lower_runner: runs the written file.
        original: runs the float32 file, which takes the same inputs.
        uint8: whether both take pixels.

    Raises:
        ExportError: the answers cannot be compared.
    """
    items = lowered.judged_on
    if lowered.pixels and not uint8:
        items = (_normalised(candidate, items[0]),)
    batch = candidate.fixed_batch
    if batch is not None:
        lower_runner, original = in_chunks(lower_runner, batch), in_chunks(original, batch)
    return compare_precision(lower_runner, original, items)


def check_fidelity(fidelity: Fidelity, lowered: Lowered, request: ExportRequest) -> None:
    """Refuse what is further from float32 than the request allows.

    Raises:
        ExportError: with the figures, and what can be done.
    """
    if fidelity.agreement >= request.least_agreement or request.force:
        return
    raise ExportError(
        f"{lowered.precision} is too far from float32: {fidelity}; asked for is an agreement of at least "
        f"{request.least_agreement:g}, judged on {lowered.judged_origin}. Try {_ANOTHER[lowered.precision]}, "
        "a smaller --least-agreement, or --force to write it all the same"
    )


def _pictures(candidate: Candidate, request: ExportRequest) -> Pictures | None:
    size = image_shape(candidate.model)
    if size is not None:
        candidate.preprocessing.check_channels(size[0])
        return gather(size, candidate.resize, request.calibration)
    if request.calibration is not None:
        raise ExportError(f"--calibration goes with networks that take pictures; {request.model} takes none")
    return None


def _quantised(
    candidate: Candidate, request: ExportRequest, pictures: Pictures | None, progress: Progress
) -> tuple[ModelProto, tuple[Kept, ...]]:
    if pictures is None and image_shape(candidate.model) is None:
        raise ExportError(
            f"--precision int8 is calibrated on pictures, and {request.model} takes none; "
            "--precision fp16 needs none"
        )
    if pictures is None:
        raise ExportError(
            "--precision int8 is calibrated on pictures: give a directory of them with --calibration, or "
            "install scikit-image's with: pip install 'boulton[photos]'"
        )
    images = _normalised(candidate, pictures.calibrating)
    return to_int8(candidate.model, images, candidate.fixed_batch, request.least_agreement, progress)


def _origins(precision: Precision, pictures: Pictures | None) -> tuple[str, str]:
    if pictures is None:
        return "random noise (it takes no pictures, or scikit-image is not installed)", ""
    return pictures.judged_origin, pictures.calibrating_origin if precision is Precision.INT8 else ""


def _normalised(candidate: Candidate, pixels: Array) -> Array:
    """Preprocess as the baked graph, or a client, would."""
    dtype = NUMPY_DTYPES[datatype_of(graph_inputs(candidate.model)[0])]
    return candidate.preprocessing.apply(pixels.astype(np.uint8, copy=False)).astype(dtype)
