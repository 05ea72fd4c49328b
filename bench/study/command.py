"""Study what training costs from published measurements: networks and GPUs, batch sizes and power limits.

`training` reads the data of del Rey et al. (Parquet or CSV), or what `boulton train-energy` wrote; `zeus`
reads the Zeus traces. Both write a page that needs no other file, and the same figures as JSON.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.console import make_console
from bench.flags import number
from bench.study.delrey import read_delrey
from bench.study.kept import RUNS, read_kept
from bench.study.runs import Run
from bench.study.sections import Section
from bench.study.showing import as_page, show, write_json
from bench.study.zeus import is_zeus, read_traces
from server.errors import ConfigError

EXIT_NOT_REPRODUCED = 1
LEAST_F1 = 0.5
PAGE, FIGURES = "report.html", "report.json"
LIBRARIES = ("boulton", "numpy", "scipy", "scikit-posthocs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton study` takes."""
    studies = parser.add_subparsers(dest="study", metavar="STUDY", required=True)
    training = studies.add_parser("training", help="networks, GPUs, F1, FLOPs", description=_TRAINING)
    training.add_argument("data", type=Path, metavar="DATA", help=_DATA)
    training.add_argument("--least-f1", type=number(0.0, 1.0, zero=True), metavar="F", help=_F1)
    training.add_argument("--fence", type=number(0.0, 100.0), default=3.0, metavar="N", help=_FENCE)
    _add_output(training)
    zeus = studies.add_parser("zeus", help="batch size x power limit", description=_ZEUS)
    zeus.add_argument("data", type=Path, nargs="+", metavar="FILE", help="summary_power_GPU.csv")
    zeus.add_argument("--eta", type=number(0.0, 1.0, zero=True), default=0.5, metavar="W", help=_ETA)
    _add_output(zeus)


_TRAINING = "What networks, GPUs and batch sizes do to the energy of training."
_ZEUS = "What batch size and power limit do to time, energy and cost of an epoch."
_DATA = "the data set of del Rey et al. (.parquet, .csv), or the folder of boulton train-energy"
_F1 = f"a training below has failed and is left out (default: {LEAST_F1:g}; for a folder 0)"
_FENCE = "interquartile ranges outside the quartiles of its cell from which a run is left out (default: 3)"
_ETA = "weight of energy in the cost, the rest being time's (default: 0.5)"


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("study-out"),
        metavar="DIR",
        help="for the report (default: study-out)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Study, print and write: 1 when a published figure does not come out of its data."""
    if arguments.study == "zeus":
        return _study_zeus(arguments.data, arguments.eta, arguments.output)
    if is_zeus(arguments.data):
        raise ConfigError(f"{arguments.data} is a Zeus trace: boulton study zeus {arguments.data}")
    return _study_training(arguments)


def _study_training(arguments: argparse.Namespace) -> int:
    from bench.study.report import examine, figures_of, sections_of

    least_f1 = arguments.least_f1
    if least_f1 is None:
        least_f1 = 0.0 if arguments.data.is_dir() else LEAST_F1
    study = examine(_read(arguments.data), least_f1, arguments.fence)
    lead = f"{len(study.runs)} trainings from {arguments.data.name}, {len(study.cleaned.kept)} compared"
    rules = {"least_f1": least_f1, "fence": arguments.fence}
    figures = {**_provenance([arguments.data]), "rules": rules, **figures_of(study)}
    publish("What training costs", lead, sections_of(study), figures, arguments.output, make_console())
    return 0 if all(claim.held for claim in study.claims) else EXIT_NOT_REPRODUCED


def _read(path: Path) -> tuple[Run, ...]:
    """The folder of `boulton train-energy`, or the data set of del Rey et al."""
    return read_kept(path) if path.is_dir() else read_delrey(path)


def _study_zeus(files: Sequence[Path], eta: float, output: Path) -> int:
    from bench.study.surfaces import survey
    from bench.study.zeus_report import sections_of

    settings = read_traces(files)
    surfaces = survey(settings, eta)
    lead = f"{len(settings)} settings of {len(surfaces)} jobs from {', '.join(path.name for path in files)}"
    figures = {**_provenance(files), "eta": eta, "surfaces": surfaces}
    sections = sections_of(surfaces, settings, eta)
    publish("Batch size and power limit in training", lead, sections, figures, output, make_console())
    return 0


def publish(
    title: str,
    lead: str,
    sections: Sequence[Section],
    figures: dict[str, Any],
    output: Path,
    console: Console,
) -> None:
    """Write the page and the figures, and print the brief parts. Raises ConfigError when they cannot be."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / PAGE).write_text(as_page(title, lead, sections), encoding="utf-8")
        write_json(output / FIGURES, figures)
    except OSError as error:
        raise ConfigError(f"--output {output} cannot be written: {error.strerror}") from error
    show(console, sections)
    for name in (PAGE, FIGURES):
        console.print(f"wrote {output / name}", style="dim", markup=False, highlight=False)


def _provenance(paths: Sequence[Path]) -> dict[str, Any]:
    """What was read, to the byte, and with which libraries."""
    files = [path / RUNS if path.is_dir() else path for path in paths]
    sources = {path.name: sha256(path.read_bytes()).hexdigest() for path in files}
    return {"sources_sha256": sources, "versions": {name: _version(name) for name in LIBRARIES}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
