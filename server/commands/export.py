"""Turn a CNN into an entry of a model repository.

The model is a built-in name, a PyTorch model as module:factory, or an ONNX file. The entry is compared with
the original before it appears in the repository.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from server.export import Exported, export_model
from server.exporting.builtin_models import BUILTIN_MODELS
from server.exporting.precision.kept import told
from server.exporting.precision.kinds import Precision
from server.exporting.precision.rewriting import Rewritten
from server.exporting.preprocessing import Preprocessing
from server.exporting.progress import ConsoleProgress
from server.exporting.request import ExportRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton export` takes."""
    add = parser.add_argument
    names = ", ".join(BUILTIN_MODELS)
    add("model", metavar="MODEL", help=f"a built-in model ({names}), module:factory, or file.onnx")
    add("--repository", type=Path, required=True, metavar="DIR", help="the model repository; made if missing")
    add("--name", help="name of the entry (default: from MODEL)")
    add("--version", type=int, help="version of the entry (default: the next free one)")
    add("--input", choices=("float32", "uint8"), default="float32", help=_INPUT_HELP)
    add(
        "--state-dict", type=Path, metavar="FILE", help="weights for module:factory, as torch.save wrote them"
    )
    add("--input-shape", type=_shape, metavar="C,H,W", help="what module:factory takes (default: 3,224,224)")
    add("--max-batch", type=_positive, metavar="N", help="largest batch the server shall use")
    add("--labels", type=Path, metavar="FILE", help="class names, one a line")
    add("--scale", type=float, metavar="F", help="factor on pixels of 0..255 (default: 1/255 = 0.00392157)")
    add(
        "--mean",
        type=_numbers,
        metavar="F[,F,F]",
        help="mean after scaling, one or one a channel (default: 0)",
    )
    add("--std", type=_numbers, metavar="F[,F,F]", help="standard deviation, likewise (default: 1)")
    add("--resize", type=_positive, metavar="N", help=_RESIZE_HELP)
    add("--precision", type=Precision, choices=list(Precision), help=_PRECISION_HELP)
    add("--calibration", type=Path, metavar="DIR", help=_CALIBRATION_HELP)
    add("--least-agreement", type=float, default=0.95, metavar="F", help=_AGREEMENT_HELP)
    add("--force", action="store_true", help=_FORCE_HELP)
    add(
        "--list", action=_List, nargs=0, help="list the built-in models with their cost and weights, and exit"
    )


class _List(argparse.Action):
    """Print the built-in models and exit, as `--help` does: MODEL and the rest need not be given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[object] | None,
        option_string: str | None = None,
    ) -> None:
        del namespace, values, option_string
        print(model_list())
        parser.exit()


def model_list() -> str:
    """Return a table of the built-in models; operations are two to a multiply-add, for one picture."""
    lines = [f"{'model':<20}{'input':<13}{'parameters':>12}{'GFLOPs':>9}  {'weights':<18}from"]
    for name, model in BUILTIN_MODELS.items():
        shape, gflops = "x".join(map(str, model.input_shape)), 2e-9 * model.multiply_adds
        weights = model.weights.partition(" on ")[0]
        cost = f"{model.parameters / 1e6:>10.2f} M{gflops:>9.2f}"
        lines.append(f"{name:<20}{shape:<13}{cost}  {weights:<18}{model.source}")
    return "\n".join(lines)


_INPUT_HELP = (
    "uint8: clients send the bytes of the picture [H,W,C] and the graph does (pixel * scale - mean) / std; "
    "float32 (default): clients do that themselves"
)
_PRECISION_HELP = (
    "convert a float32 network; inputs and outputs keep their types "
    "(default: leave it in the precision it has)"
)
_CALIBRATION_HELP = (
    "JPEG and PNG files like those that clients will send: int8 is calibrated on three quarters of them, and "
    "the precision judged on the rest (default: scikit-image's photographs)"
)
_AGREEMENT_HELP = (
    "refuse lower precision that gives the same first class as float32 for a smaller share of the pictures "
    "(default: %(default)s)"
)
_FORCE_HELP = "overwrite the version if it exists, and write it however far from float32 it is"
_NO_PHOTOGRAPHS = "not compared on photographs: it takes no pictures, or scikit-image is not installed"
_RESIZE_HELP = "JPEG and PNG: the shorter side becomes N pixels before the centre is cut out"


def run(arguments: argparse.Namespace) -> int:
    """Export and print what was written. Raises `ExportError` when it could not be."""
    print(_summary(export_model(_request(arguments), ConsoleProgress())))
    return 0


def _request(arguments: argparse.Namespace) -> ExportRequest:
    return ExportRequest(
        model=arguments.model,
        repository=arguments.repository,
        name=arguments.name,
        version=arguments.version,
        uint8=arguments.input == "uint8",
        state_dict=arguments.state_dict,
        input_shape=arguments.input_shape,
        max_batch=arguments.max_batch,
        labels=arguments.labels,
        preprocessing=_preprocessing(arguments),
        resize=arguments.resize,
        force=arguments.force,
        precision=arguments.precision,
        calibration=arguments.calibration,
        least_agreement=arguments.least_agreement,
    )


def _preprocessing(arguments: argparse.Namespace) -> Preprocessing | None:
    given = {"scale": arguments.scale, "mean": arguments.mean, "std": arguments.std}
    told = {key: value for key, value in given.items() if value is not None}
    return Preprocessing(**told) if told else None


def _summary(exported: Exported) -> str:
    lines = [f"{exported.name} version {exported.version}: {exported.path} ({_mib(exported.path)})"]
    lines += [f"  input   {text}" for text in exported.inputs]
    lines += [f"  output  {text}" for text in exported.outputs]
    lines += [f"  baked   {exported.preprocessing}"] if exported.preprocessing else []
    lines += ["  also    encoded JPEG and PNG, one to a BYTES element"] if exported.accepts_pictures else []
    lines += [f"  labels  {exported.labels}"] if exported.labels else []
    lines += [f"  parity  against {exported.reference_name}: {exported.parity}"]
    lines += [] if exported.parity.photographs else [f"  note    {_NO_PHOTOGRAPHS}"]
    lines += _precision_lines(exported.precision, exported.rewritten)
    lines += [f"  note    {text}" for text in exported.notes]
    return "\n".join(lines)


def _precision_lines(precision: str, rewritten: Rewritten | None) -> list[str]:
    if rewritten is None:
        return [f"  in      {precision}"]
    sizes = (
        f"{rewritten.file_bytes / (1 << 20):.1f} MiB, float32 {rewritten.float32_bytes / (1 << 20):.1f} MiB"
    )
    lines = [f"  in      {precision} ({sizes})", f"  against float32: {rewritten.fidelity}"]
    lines += [f"  judged on {rewritten.judged_on}"]
    lines += [f"  calibrated on {rewritten.calibrated_on}"] if rewritten.calibrated_on else []
    return lines + [f"  kept in float32: {line}" for line in told(rewritten.kept)]


def _mib(path: Path) -> str:
    return f"{path.stat().st_size / (1 << 20):.1f} MiB"


def _shape(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isascii() and part.strip().isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"expected positive numbers such as 3,224,224, got {text!r}")
    return tuple(map(int, parts))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected numbers such as 0.485,0.456,0.406, got {text!r}"
        ) from None


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)
