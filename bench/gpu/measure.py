"""Compare all engines on this machine's GPU, and print tables to keep. Reads the GPU and sets nothing.

    python -m bench.gpu.measure [--minutes 9] [--out DIR] [--copy DIR] [--network NAME] [--batches 1,8,64] ...

Made to be carried to a GPU machine that is lent for minutes: without arguments it measures four CNNs in FP32
and FP16 at batches 1 to 256 on every engine that runs there, in as many turns as there is time for. With all
of them that is more than nine minutes hold: name one network a call. It ends in time with what it has, and
the same command goes on where it stopped as long as `--out` is there. What a longer run adds are turns: with
fewer than six the intervals say that they cover less than 95 %.

Boulton need not be installed there: its repository as the working directory will do, with the folder
boulton.egg-info in it, and the packages of the engines.

Everything after `--` goes to `boulton compare` as it is.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from collections.abc import Mapping, Sequence
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

RESULTS = ("compare.json", "compare.csv", "report.html", "table.md")
EXIT_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print, copy; return what `boulton compare` returned, 2 when it could not begin."""
    ours, theirs = _split(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(ours)
    parser = argparse.ArgumentParser(prog="boulton compare")
    command.add_arguments(parser)
    try:
        code = command.run(parser.parse_args([*_words(arguments), *_engines(theirs), *theirs]))
    except BoultonError as error:
        print(f"bench.gpu.measure: {error}", file=sys.stderr)
        return EXIT_ERROR
    _tell(arguments.out, arguments.copy)
    return code


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
        help="begin no turn that would end later (default: 9)",
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


def _tell(out: Path, copy: Path | None) -> None:
    with (out / "compare.csv").open(newline="", encoding="utf-8") as file:
        text = markdown(list(csv.DictReader(file)))
    (out / "table.md").write_text(text, encoding="utf-8")
    print(text)
    if copy is not None:
        copy.mkdir(parents=True, exist_ok=True)
        for name in RESULTS:
            shutil.copy(out / name, copy)


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
