"""Measure engines, precisions and batch sizes on CNNs side by side: time, energy, memory, start-up.

Results are kept in the output folder: a second run measures only what is missing, or was measured otherwise.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from bench.compare.agreement import Earlier, agreements, read_earlier
from bench.compare.conditions import Conditions
from bench.compare.contest import Contest, Ground
from bench.compare.energy import Meters
from bench.compare.engines import Engines, choose_engines, versions_of
from bench.compare.html_report import report
from bench.compare.networks import NetworkFile, network_names, obtain_network
from bench.compare.plan import Cell, Settings
from bench.compare.records import Record
from bench.compare.settling import SettlingRule
from bench.compare.store import Store
from bench.compare.summary import Baseline, summarise, verdicts
from bench.compare.tables import show, show_agreements
from bench.compare.time_limit import TimeLimit
from bench.compare.writing import write_csv, write_json
from bench.console import make_console
from bench.flags import number, whole
from bench.progress import CountingBar
from bench.serving.machine import Machine, this_machine
from server.engines.registry import engine_names
from server.errors import ConfigError, ExportError
from server.exporting.precision.kinds import Precision
from server.exporting.progress import ConsoleProgress
from server.files import make_folder

EXIT_INCOMPLETE = 1
FILES = ("compare.json", "compare.csv", "report.html")
LINE_EVERY_S = 20.0
PREFERRED_BASELINES = ("pytorch", "onnxruntime")
QUICK = Settings(turns=6, window_s=0.5, lead_s=0.1, idle_s=2.0, settling=SettlingRule(limit_s=3.0))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton compare` takes."""
    add, usual = parser.add_argument, Settings()
    add(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a built-in network (boulton export --list) or an ONNX file",
    )
    add("--engine", action="append", metavar="NAME", choices=engine_names(served=False), help=_ENGINE)
    add("--precision", action="append", type=Precision, choices=list(Precision), help=_PRECISION)
    add("--batches", type=_batches, default=(1, 8, 32), metavar="N,N,...", help="(default: 1,8,32)")
    add("--baseline", type=_baseline, metavar="ENGINE[:PRECISION]", help=_BASELINE)
    add("--turns", type=whole(1, 1000), metavar="N", help=f"(default: {usual.turns}; 6 and more give 95 %%)")
    add(
        "--window",
        type=number(0.0, 3600.0),
        metavar="S",
        help=f"of each measurement (default: {usual.window_s:g})",
    )
    add("--lead", type=number(0.0, 3600.0, zero=True), metavar="S", help=_LEAD)
    add("--warm-up", type=number(0.0, 3600.0), metavar="S", help=_WARM_UP)
    add("--threads", type=whole(1, 1024), metavar="N", help="of a batch on the CPU (default: all cores)")
    add("--device", type=whole(0, 63), default=0, metavar="INDEX", help="which GPU (default: 0)")
    add("--minutes", type=number(0.0, 1e5), metavar="M", help=_MINUTES)
    add("--against", type=Path, metavar="EARLIER.json", help=_AGAINST)
    add("--out", type=Path, default=Path("compare-out"), metavar="DIR", help="(default: compare-out)")
    add(
        "--quick",
        action="store_true",
        help=f"{QUICK.turns} turns of {QUICK.window_s:g} s: too short for energy",
    )


_ENGINE = "may be repeated (default: all that run here; the others are listed with what to install)"
_PRECISION = "may be repeated (default: fp32 for a built-in network; an ONNX file as it is)"
_BASELINE = "what ratios are to; without precision, that of each line (default: pytorch, else onnxruntime)"
_LEAD = f"the same work, uncounted, before each measurement (default: {Settings().lead_s:g})"
_WARM_UP = f"the longest warm-up of a batch size (default: {Settings().settling.limit_s:g})"
_AGAINST = "the compare.json of an earlier run with another --out: say cell by cell whether the two agree"
_MINUTES = (
    "begin no turn that would end later; networks share them, and a start may take half of what is left; "
    "run again to go on"
)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print and write: 1 when something failed or is still to be measured."""
    console, date = make_console(), datetime.now(UTC)
    engines = choose_engines(arguments.engine)
    names, machine = network_names(tuple(arguments.models)), this_machine()
    settings, baseline = settings_from(arguments), _chosen_baseline(arguments.baseline, engines.present)
    earlier = {} if arguments.against is None else read_earlier(arguments.against)
    make_folder(arguments.out, "--out")
    meters = Meters(settings.device_index)
    try:
        meters.open()
        _introduce(console, machine, engines, meters)
        ground = Ground(
            settings=settings,
            store=Store(arguments.out),
            folder=arguments.out,
            meters=meters,
            machine=(machine.cpu, machine.cores, machine.python, meters.gpu_identity),
            run=date.isoformat(timespec="seconds"),
            time=TimeLimit(60.0 * arguments.minutes) if arguments.minutes else TimeLimit(),
        )
        found = Found()

        def conditions() -> Conditions:
            return Conditions(
                command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
                date=ground.run,
                machine=machine,
                gpu=meters.gpu_identity,
                simulated=meters.simulated,
                settings=settings,
                baseline=baseline,
                versions={engine: versions_of(engine) for engine in engines.present},
                files=tuple(found.files),
                notes=tuple(meters.notes),
                unavailable=tuple(found.unavailable),
            )

        def keep() -> None:
            """What was measured by now, for whoever is interrupted or killed."""
            write_all(arguments.out, found.records, engines, conditions(), earlier)

        _compare(ground, names, arguments.precision, engines, arguments.batches, found, keep)
    finally:
        meters.close()
    _present(found.records, engines, conditions(), earlier, arguments.out, console)
    return _exit_code(found.records, settings, found.unavailable)


@dataclass(slots=True)
class Found:
    """What is known by now: of every cell, the files that were run, and what could not be had and why."""

    whole: list[Record] = field(default_factory=list)
    under_way: tuple[Record, ...] = ()
    files: list[NetworkFile] = field(default_factory=list)
    unavailable: list[str] = field(default_factory=list)

    @property
    def records(self) -> tuple[Record, ...]:
        """Of all networks up to the one under way."""
        return (*self.whole, *self.under_way)


def settings_from(arguments: argparse.Namespace) -> Settings:
    """Turn flags into settings; `--quick` changes what is not given."""
    usual = QUICK if arguments.quick else Settings()
    rule = usual.settling
    limit_s = arguments.warm_up or rule.limit_s
    return Settings(
        turns=arguments.turns or usual.turns,
        window_s=arguments.window or usual.window_s,
        lead_s=usual.lead_s if arguments.lead is None else arguments.lead,
        idle_s=usual.idle_s,
        threads=arguments.threads or len(os.sched_getaffinity(0)),
        settling=SettlingRule(rule.block_s, rule.tolerance, limit_s),
        device_index=arguments.device,
    )


def _compare(
    ground: Ground,
    names: dict[str, str],
    precisions: Sequence[Precision] | None,
    engines: Engines,
    batches: tuple[int, ...],
    found: Found,
    keep: Callable[[], None],
) -> None:
    """One network after the other, each with an equal share of the time that is left."""
    for index, (name, model) in enumerate(names.items()):
        share = replace(ground, time=ground.time.divided(len(names) - index))
        files = _files(ground.folder / "models", name, model, precisions, found.unavailable)
        found.files += files.values()
        with CountingBar("measuring", "measured, now", LINE_EVERY_S) as progress:

            def after_turn() -> None:
                found.under_way = contest.records  # noqa: B023 - called while this contest is held
                keep()

            contest = Contest(share, files, engines.present, batches, progress, after_turn=after_turn)
            try:
                contest.hold()
            finally:
                found.whole += contest.records
                found.under_way = ()
        keep()


def _files(
    folder: Path, name: str, model: str, precisions: Sequence[Precision] | None, unavailable: list[str]
) -> dict[str, NetworkFile]:
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, NetworkFile] = {}
    for precision in precisions or (None,):
        which = name if precision is None else f"{name} {precision}"
        try:
            file = obtain_network(name, model, precision, folder, ConsoleProgress())
        except ExportError as error:
            unavailable.append(f"{which}: {error}")
        except Exception as error:  # whatever a framework raises must not cost the other networks' figures
            unavailable.append(f"{which}: {type(error).__name__}: {error}")
        else:
            files[file.precision] = file
    return files


def _present(
    records: Sequence[Record],
    engines: Engines,
    conditions: Conditions,
    earlier: Mapping[Cell, Earlier],
    folder: Path,
    console: Console,
) -> None:
    lines = summarise(records, conditions.baseline)
    show(lines, verdicts(lines), engines.missing, conditions.baseline, console)
    if earlier:
        show_agreements(agreements(lines, earlier), console)
    for text in (*conditions.notes, *conditions.unavailable):
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    for path in write_all(folder, records, engines, conditions, earlier):
        console.print(f"wrote {path}", style="dim", highlight=False)


def write_all(
    folder: Path,
    records: Sequence[Record],
    engines: Engines,
    conditions: Conditions,
    earlier: Mapping[Cell, Earlier],
) -> tuple[Path, ...]:
    """Write tables and report into a folder, each file at once or not at all; return the files."""
    lines = summarise(records, conditions.baseline)
    found, agreed = verdicts(lines), agreements(lines, earlier)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as made:
        aside = Path(made)
        write_json(aside / "compare.json", lines, found, engines.missing, conditions, agreed)
        write_csv(aside / "compare.csv", lines)
        text = report(lines, found, engines.missing, conditions)
        (aside / "report.html").write_text(text, encoding="utf-8")
        return tuple((aside / name).replace(folder / name) for name in FILES)


def _introduce(console: Console, machine: Machine, engines: Engines, meters: Meters) -> None:
    console.print(str(machine), style="dim", highlight=False)
    if meters.gpu_identity is not None:
        console.print(f"{meters.gpu_identity.name}, driver {meters.gpu_identity.driver}", highlight=False)
    if meters.simulated:
        console.print("The NVML library is the stand-in: every figure of the GPU is simulated.")
    console.print(f"engines: {', '.join(engines.present) or 'none'}", highlight=False)


def _exit_code(records: Sequence[Record], settings: Settings, unavailable: Sequence[str]) -> int:
    whole_ones = all(not record.failure and not record.lacks(settings.turns) for record in records)
    return 0 if records and whole_ones and not unavailable else EXIT_INCOMPLETE


def _chosen_baseline(wanted: Baseline | None, present: Sequence[str]) -> Baseline | None:
    if wanted is None:
        engine = next((name for name in PREFERRED_BASELINES if name in present), None)
        return None if engine is None else Baseline(engine)
    if wanted.engine not in present:
        raise ConfigError(
            f"--baseline {wanted}: {wanted.engine} takes no part; there are {', '.join(present)}"
        )
    return wanted


def _baseline(text: str) -> Baseline:
    engine, _, precision = text.partition(":")
    if engine not in engine_names(served=False) or (precision and precision not in list(Precision)):
        allowed = ", ".join(engine_names(served=False))
        raise argparse.ArgumentTypeError(
            f"expected one of {allowed}, e.g. pytorch or pytorch:fp32, got {text!r}"
        )
    return Baseline(engine, precision or None)


def _batches(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and 1 <= int(part) <= 4096 for part in parts):
        raise argparse.ArgumentTypeError(f"expected sizes from 1 to 4096 such as 1,8,32, got {text!r}")
    return tuple(sorted({int(part) for part in parts}))
