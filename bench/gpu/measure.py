"""Compare all engines on this machine's GPU, and print tables to keep. Reads the GPU and sets nothing.

    python -m bench.gpu.measure [--minutes 9] [--out DIR] [--copy DIR] [--network NAME] [--batches 1,8,64] ...

Made to be carried to a GPU machine that is lent for minutes: without arguments it measures four CNNs in FP32
and FP16 at batches 1 to 256 on every engine that runs there, each network in its share of the minutes and in
as many turns as there is time for. With all of them the shares are short: name one or two networks a call.
The same command goes on where it stopped as long as `--out` is there. What a longer run adds are turns: with
fewer than six the intervals say that they cover less than 95 %.

The comparison is a process of its own. What it has measured is copied and in the table whatever becomes of
it: at the end of the minutes it is told to stop, and if it hangs it is killed.

Boulton need not be installed there: its repository as the working directory will do, with the folder
boulton.egg-info in it, and the packages of the engines. Exporting needs torch, onnxscript and onnxruntime,
FP16 onnxconverter-common, and efficientnet-lite0 its two packages besides; what lacks something is left out
and named.

Everything after `--` goes to `boulton compare` as it is.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bench.compare import command
from bench.flags import number
from server.engines.registry import engine_kind, engine_names
from server.errors import BoultonError

NETWORKS = ("resnet50", "vgg16", "mobilenetv2", "efficientnet-lite0")
PRECISIONS = ("fp32", "fp16")
BATCHES = "1,8,64,256"
BRIEF = ("--window", "1", "--lead", "0.3", "--warm-up", "3")
"""Counters tick every 100 ms at the slowest, and windows reach from tick to tick."""

RESULTS = (*command.FILES, "table.md")
EXIT_ERROR = 2
EXIT_STOPPED = 3

_GRACE_S = 15.0
"""Beyond the minutes, for a turn that takes longer than was thought and for writing."""

_STOP_S = 10.0
_PR_SET_PDEATHSIG = 1
_PROGRAM = (
    "import sys; from bench.gpu import measure; "
    "sys.argv = ['boulton', 'compare', *sys.argv[1:]]; "  # as it is told in what is written
    "sys.exit(measure.compare(sys.argv[2:]))"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print, copy; return what `boulton compare` returned, 2 when it could not begin."""
    ours, theirs = _split(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(ours)
    words = [*_words(arguments), *_engines(theirs), *theirs]
    limit_s = 60.0 * arguments.minutes + _GRACE_S
    before = signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # in order as well
    try:
        return supervised([sys.executable, "-c", _PROGRAM, *words], limit_s, lambda: _keep(arguments))
    finally:
        signal.signal(signal.SIGTERM, before)
        _tell(arguments.out)
        _keep(arguments)


def compare(words: Sequence[str]) -> int:
    """Be the process that compares; it ends when the one that started it does, even if that is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parser = argparse.ArgumentParser(prog="boulton compare")
    command.add_arguments(parser)
    try:
        return command.run(parser.parse_args(words))
    except BoultonError as error:
        print(f"bench.gpu.measure: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("bench.gpu.measure: stopped, as the time is up", file=sys.stderr)
        return EXIT_STOPPED


def supervised(command: Sequence[str], limit_s: float, every_second: Callable[[], None]) -> int:
    """Run a command, for `limit_s` at most; return its code, or the signal that ended it, negative.

    It and what it started are then interrupted, and killed when they have not gone a little later.
    """
    process = subprocess.Popen(command, process_group=0)
    until_s = time.monotonic() + limit_s
    try:
        while process.poll() is None and time.monotonic() < until_s:
            with suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
            every_second()
    finally:
        for number in (signal.SIGINT, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_STOP_S)
    return process.wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.measure", description=__doc__)
    add = parser.add_argument
    add(
        "--network", action="append", metavar="NAME", help=f"may be repeated (default: {', '.join(NETWORKS)})"
    )
    add("--precision", action="append", help=f"may be repeated (default: {', '.join(PRECISIONS)})")
    add("--batches", default=BATCHES, help=f"(default: {BATCHES})")
    add(
        "--minutes",
        type=number(0.0, 1e5),
        default=9.0,
        help="begin no turn that would end later, and stop half a minute later at most (default: 9)",
    )
    add("--out", type=Path, default=Path("compare-out"), metavar="DIR", help="(default: compare-out)")
    add(
        "--copy", type=Path, metavar="DIR", help="where tables and report are copied to, without the networks"
    )
    return parser


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    at = list(words).index("--") if "--" in words else len(words)
    return list(words[:at]), list(words[at + 1 :])


def _words(arguments: argparse.Namespace) -> list[str]:
    precisions = arguments.precision or PRECISIONS
    return [
        *BRIEF,
        *(arguments.network or NETWORKS),
        *(word for precision in precisions for word in ("--precision", precision)),
        *("--batches", arguments.batches),
        *("--minutes", str(arguments.minutes)),
        *("--out", str(arguments.out)),
    ]


def _engines(theirs: Sequence[str]) -> list[str]:
    """Name what can run on a GPU, unless engines are given: a CPU would take most of the minutes."""
    if "--engine" in theirs:
        return []
    names = [name for name in engine_names(served=False) if engine_kind(name).where != "cpu"]
    return [word for name in names for word in ("--engine", name)]


def _tell(out: Path) -> None:
    table = out / "compare.csv"
    if not table.is_file():
        print("nothing was measured; what was printed above says why")
        return
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    text = markdown(rows)
    (out / "table.md").write_text(text, encoding="utf-8")
    print(text)
    for row in rows:
        if row["failure"]:
            cell = f"{row['network']} {row['precision']} on {row['engine']}, batch {row['batch']}"
            print(f"failed: {cell}: {row['failure']}")


def _keep(arguments: argparse.Namespace) -> None:
    """Copy what has changed, each file at once, to where it outlasts this machine."""
    if arguments.copy is None:
        return
    arguments.copy.mkdir(parents=True, exist_ok=True)
    for name in RESULTS:
        source, target = arguments.out / name, arguments.copy / name
        with suppress(FileNotFoundError):
            if not target.exists() or source.stat().st_mtime_ns > target.stat().st_mtime_ns:
                partial = target.with_suffix(".partial")
                shutil.copy2(source, partial)
                partial.replace(target)


_COLUMNS = (
    ("network", "CNN", "{}"),
    ("precision", "precision", "{}"),
    ("engine", "engine", "{}"),
    ("batch", "batch", "{}"),
    ("p50_ms", "p50 ms", "{:.3g}"),
    ("p99_ms", "p99 ms", "{:.3g}"),
    ("images_per_s", "images/s", "{:.0f}"),
    ("power_w", "W", "{:.0f}"),
    ("joules_per_image", "mJ/image", "{:.3g}"),
    ("images_per_joule", "images/J", "{:.3g}"),
    ("energy_source", "energy from", "{}"),
)
_TIMES = {"joules_per_image": 1e3}


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """Return the measured rows of a comparison's CSV as a Markdown table."""
    measured = [row for row in rows if row["p50_ms"]]
    lines = ["| " + " | ".join(title for _, title, _ in _COLUMNS) + " |", "|" + " --- |" * len(_COLUMNS)]
    lines += ["| " + " | ".join(_text(row, *column) for column in _COLUMNS) + " |" for row in measured]
    return "\n".join(lines) + "\n"


def _text(row: Mapping[str, str], name: str, _title: str, form: str) -> str:
    value = row[name]
    if not value or form == "{}":
        return value
    return form.format(float(value) * _TIMES.get(name, 1.0))


if __name__ == "__main__":
    sys.exit(main())
