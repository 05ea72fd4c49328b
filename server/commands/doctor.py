"""Say what Boulton can do with the GPUs of this machine, and what to do about every gap; sets nothing.

The exit code is 0 when there is a GPU to be read, with gaps or without, and 1 when there is none.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from optimizer.devices.nvml.failures import NvmlFailure
from server.config import KEEPER_SOCKET
from server.diagnosis import Diagnosis, GpuDiagnosis, diagnose
from server.logs import escape

NO_GPU = 1
_NONE = "no NVIDIA GPU can be used here, so the batch size alone can be governed, on the CPU"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton doctor` takes."""
    add = parser.add_argument
    add("--gpu", metavar="GPU", help="index or UUID of one GPU, as --device of `serve` (default: all)")
    add(
        "--keeper-socket",
        type=Path,
        metavar="PATH",
        help=f"where to look for the keeper (default: {KEEPER_SOCKET}, when it exists)",
    )
    add("--json", action="store_true", help="print JSON instead of tables")


def run(arguments: argparse.Namespace) -> int:
    """Look and print. Raises `DeviceError` when the GPU that is asked for is not there."""
    try:
        diagnosis = diagnose(arguments.gpu, os.environ, _keeper(arguments.keeper_socket))
    except NvmlFailure as failure:
        return _without_nvml(failure, as_json=arguments.json)
    if arguments.json:
        print(json.dumps(asdict(diagnosis), indent=2))
    else:
        _print(Console(), diagnosis)
    return 0 if any(gpu.uuid for gpu in diagnosis.gpus) else NO_GPU


def _keeper(given: Path | None) -> Path | None:
    """The socket to try: the one that is named, the usual one only when something is there."""
    return given or (KEEPER_SOCKET if KEEPER_SOCKET.exists() else None)


def _without_nvml(failure: NvmlFailure, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": str(failure), "code": failure.code_name, "gpus": []}, indent=2))
    else:
        print(f"{_NONE}.\n{failure}", file=sys.stderr)
    return NO_GPU


def _print(console: Console, diagnosis: Diagnosis) -> None:
    console.print(Text(f"NVIDIA driver {escape(diagnosis.driver)}"))
    if diagnosis.simulated:
        console.print(
            Text("The NVML library is the stand-in: its GPUs are simulated, and so is every figure.")
        )
    for gpu in diagnosis.gpus:
        console.print()
        console.print(_table(gpu))
    if not diagnosis.gpus:
        console.print(Text(f"{_NONE}: the driver lists none."))
    for warning in diagnosis.warnings:
        console.print(Text(f"\n{escape(warning)}"))


def _table(gpu: GpuDiagnosis) -> Table | Text:
    if not gpu.capabilities:
        return Text(f"GPU {gpu.index} cannot be used: {escape(gpu.why_not)}")
    heading = f"GPU {gpu.index}: {escape(gpu.name)} {escape(gpu.uuid)}"
    table = Table(title=Text(heading), title_justify="left")
    table.add_column("capability", no_wrap=True)
    table.add_column("there")
    table.add_column("what was found")
    table.add_column("what to do, or what is done without")
    for item in gpu.capabilities:
        there = Text("yes", style="green") if item.available else Text("no", style="yellow")
        table.add_row(Text(item.name), there, Text(escape(item.detail)), Text(escape(item.remedy)))
    return table
