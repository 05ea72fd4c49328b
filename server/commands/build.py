"""Build TensorRT engines from an ONNX file, also for other GPUs than this machine's.

With --rtx no GPU is needed. What is kept from an earlier time is not built again. The server takes engines
from the folder `engines` of its --state-dir where they fit the model and the batch sizes that it serves, and
builds what is missing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from server.engines.graph_specs import read_graph_specs
from server.engines.padding import default_served_batches
from server.engines.tensorrt.builder import WORKSPACE_BYTES, BuildOptions, BuildRequest
from server.engines.tensorrt.plan_cache import PlanCache
from server.engines.tensorrt.plans import build_for, portable_groups
from server.engines.tensorrt.toolkit import TENSORRT, TENSORRT_RTX, Toolkit, load_toolkit
from server.errors import ConfigError

_USUAL_LARGEST = 64
_MIB = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton build` takes."""
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL.onnx", help="the ONNX file; its precision becomes the engine's")
    add("--output", type=Path, required=True, metavar="DIR", help="where engines are kept; made if missing")
    add("--for", dest="capabilities", type=_names, metavar="SM80,SM86", help=_FOR_HELP)
    add("--batches", type=_numbers, metavar="1,8,32", help=_BATCHES_HELP)
    add("--rtx", action="store_true", help="build with TensorRT-RTX rather than TensorRT")
    add("--no-tf32", action="store_true", help="compute FP32 layers in FP32, not in TF32 as frameworks do")
    add("--layer-names", action="store_true", help="keep what is needed to tell layers apart in studies")
    add(
        "--workspace-mib",
        type=_positive,
        default=WORKSPACE_BYTES // _MIB,
        metavar="N",
        help="most scratch memory of a layer on the GPU (default: %(default)s)",
    )


_FOR_HELP = "compute capabilities of the GPUs to build for, an engine each (default: all that it builds for)"
_BATCHES_HELP = "batch sizes that run without padding (default: powers of two up to 64)"


def run(arguments: argparse.Namespace) -> int:
    """Build and print what was written. Raises `EngineError` when it could not be."""
    toolkit = load_toolkit(TENSORRT_RTX if arguments.rtx else TENSORRT)
    request = BuildRequest(arguments.model, _batches(arguments), options=_options(arguments))
    cache = PlanCache(arguments.output)
    for group in portable_groups(_capabilities(arguments, toolkit)):
        _build(toolkit, request, group, cache)
    return 0


def _build(toolkit: Toolkit, request: BuildRequest, group: Sequence[str], cache: PlanCache) -> None:
    begin_s = time.monotonic()
    with _progress() as progress:
        task = progress.add_task(", ".join(group), total=1.0, phase="")

        def on_progress(share: float, phase: str) -> bool:
            progress.update(task, completed=share, phase=phase)
            return True

        paths = build_for(toolkit, request, group, cache, on_progress)
    taken_s = time.monotonic() - begin_s
    for capability, path in zip(group, paths, strict=True):
        print(f"{capability}  {path}  {path.stat().st_size / _MIB:.1f} MiB  {taken_s:.1f} s", flush=True)


def _progress() -> Progress:
    """A bar on a terminal, silence elsewhere: the result is a line of its own."""
    console = Console(stderr=True)
    kind, phase = TextColumn("{task.description}"), TextColumn("{task.fields[phase]}")
    columns = kind, BarColumn(), TimeElapsedColumn(), phase
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _batches(arguments: argparse.Namespace) -> tuple[int, ...]:
    if arguments.batches is not None:
        return tuple(arguments.batches)
    return default_served_batches(_USUAL_LARGEST) if read_graph_specs(arguments.model).batched else ()


def _capabilities(arguments: argparse.Namespace, toolkit: Toolkit) -> tuple[str, ...]:
    if not toolkit.capabilities:
        raise ConfigError(
            f"{toolkit.name} {toolkit.version} builds only for the GPU at hand, and the server does that: "
            "build for others with --rtx"
        )
    unknown = [name for name in arguments.capabilities or () if name not in toolkit.capabilities]
    if unknown:
        allowed = ", ".join(toolkit.capabilities)
        raise ConfigError(
            f"--for {unknown[0]}: {toolkit.name} {toolkit.version} builds for {allowed}; `boulton doctor` "
            "says what this machine has"
        )
    return tuple(arguments.capabilities or toolkit.capabilities)


def _options(arguments: argparse.Namespace) -> BuildOptions:
    return BuildOptions(
        workspace_bytes=arguments.workspace_mib * _MIB,
        tf32=not arguments.no_tf32,
        detailed=arguments.layer_names,
    )


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip().upper().replace(".", "") for part in text.split(","))
    return tuple(dict.fromkeys(name if name.startswith("SM") else f"SM{name}" for name in names))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(_positive(part.strip()) for part in text.split(","))


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected positive whole numbers, got {text!r}")
    return int(text)
