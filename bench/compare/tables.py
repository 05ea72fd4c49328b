"""The comparison in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.compare.agreement import Agreement, agreement_text
from bench.compare.estimates import Estimate
from bench.compare.plan import Subject
from bench.compare.summary import NOISE_ALLOWED, Baseline, Line, Ratio, Verdict, noisy_share

NOT_MEASURED = "not measured"
_NAMES_SHOWN = 6
_UNRELIABLE = "; not to be relied on: the machine was too noisy while these were measured"
ENERGY = ("W", "J/image", "images/J", "thrift")
HEADINGS = ("engine", "precision", "batch", "p50 ms", "p99 ms", "images/s", "speed", *ENERGY)
START_HEADINGS = (
    "engine", "precision", "runs on", "host MiB", "GPU MiB", "start s", "build s", "idle W", "energy from"
)  # fmt: skip
AGAINST_HEADINGS = ("network", "precision", "engine", "batch", "earlier ms", "now ms", "apart", "")


def show(
    lines: Sequence[Line],
    found: Sequence[Verdict],
    missing: Mapping[str, str],
    baseline: Baseline | None,
    console: Console,
) -> None:
    """Print a table a network, then who is best, what failed, what is missing, and whether it was quiet."""
    for network in dict.fromkeys(line.cell.subject.network for line in lines):
        own = [line for line in lines if line.cell.subject.network == network]
        console.print(_table(network, own, baseline))
        if any(line.record.start is not None for line in own):
            console.print(_start_table(own))
    for text in (*verdict_texts(found), *remarks(lines), *missing_texts(missing)):
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def show_agreements(found: Sequence[Agreement], console: Console) -> None:
    """Print a line a cell that was measured before as well, and a sentence on all of them."""
    table = _empty("against the earlier run", AGAINST_HEADINGS)
    for one in found:
        subject = one.cell.subject
        names = (subject.network, subject.precision, subject.engine, str(one.cell.batch))
        times = (figure(one.earlier_ms), figure(one.now_ms))
        table.add_row(*names, *times, f"{one.apart:.1%}", one.verdict.value)
    console.print(table)
    console.print(agreement_text(found), highlight=False, markup=False, soft_wrap=True)


def _table(network: str, lines: Sequence[Line], baseline: Baseline | None) -> Table:
    headings, rows = main_table(lines)
    table = _empty(f"{escape(network)}: {explained(lines, baseline)}", headings)
    last = None
    for line, row in zip(lines, rows, strict=True):
        if last not in (None, line.cell.subject):
            table.add_section()
        last = line.cell.subject
        table.add_row(*row)
    return table


def _start_table(lines: Sequence[Line]) -> Table:
    table = _empty("memory and start-up; memory is the most at any of the batch sizes", START_HEADINGS)
    for row in start_rows(lines):
        table.add_row(*row)
    return table


def _empty(title: str, headings: Sequence[str]) -> Table:
    table = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), collapse_padding=True
    )
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index < 2 else "right", no_wrap=True)
    return table


def explained(lines: Sequence[Line], baseline: Baseline | None) -> str:
    """Say what the figures of the main table are, as far as it has them."""
    covered = [line.p50_ms.coverage for line in lines if line.p50_ms is not None and line.p50_ms.coverage]
    parts = ["medians"]
    if covered:
        parts.append(f"± half the width of the interval ({min(covered):.0%} or more)")
    if baseline is not None:
        parts.append(f"speed: images/s over {baseline}'s")
        if _has_energy(lines):
            parts.append(f"thrift: images/J over {baseline}'s")
    return "; ".join(parts)


def _has_energy(lines: Sequence[Line]) -> bool:
    return any(line.power_w for line in lines)


def main_table(lines: Sequence[Line]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return headings and rows; without those of energy where none was measured at all."""
    rows = [cells(line) for line in lines]
    if _has_energy(lines):
        return HEADINGS, rows
    return HEADINGS[: -len(ENERGY)], [row[: -len(ENERGY)] for row in rows]


def cells(line: Line) -> tuple[str, ...]:
    """Return the texts of a line, one a heading."""
    subject = line.cell.subject
    names = (subject.engine, subject.precision, str(line.cell.batch))
    if line.p50_ms is None:
        return (*names, "failed" if line.record.failure else "-", *[""] * (len(HEADINGS) - 4))
    return (
        *names,
        with_spread(line.p50_ms),
        figure(line.p99_ms),
        with_spread(line.images_per_s),
        ratio_text(line.speed),
        figure(line.power_w.value) if line.power_w else NOT_MEASURED,
        with_spread(line.joules_per_image) if line.joules_per_image else "",
        figure(line.images_per_joule.value) if line.images_per_joule else "",
        ratio_text(line.thrift),
    )


def start_rows(lines: Sequence[Line]) -> list[tuple[str, ...]]:
    """Return a row for each engine and precision that started."""
    last = {line.cell.subject: line for line in lines if line.record.start is not None}
    return [_start_row(line) for line in last.values()]


def _start_row(line: Line) -> tuple[str, ...]:
    start, subject = line.record.start, line.cell.subject
    if start is None:
        return (subject.engine, subject.precision, *[""] * (len(START_HEADINGS) - 2))
    return (
        subject.engine,
        subject.precision,
        start.platform,
        figure(start.host_peak_mib),
        figure(start.gpu_mib) or ("" if not start.on_gpu else NOT_MEASURED),
        f"{start.start_s:.1f}",
        "" if start.build_s is None else f"{start.build_s:.1f}",
        figure(line.record.idle_w) or NOT_MEASURED,
        ", ".join(line.sources) or NOT_MEASURED,
    )


def with_spread(estimate: Estimate | None) -> str:
    """Return a figure with half the width of its interval in percent."""
    if estimate is None:
        return NOT_MEASURED
    half = 50.0 * (estimate.high - estimate.low) / estimate.value if estimate.value else 0.0
    return f"{figure(estimate.value)} ±{half:.0f}%"


def ratio_text(ratio: Ratio | None) -> str:
    """Return a ratio; a mark in its place where the two were not measured side by side."""
    if ratio is None:
        return ""
    return f"{ratio.estimate.value:.2f}x" if ratio.side_by_side else "*"


def interval_text(ratio: Ratio) -> str:
    """Return a ratio with its whole interval."""
    e = ratio.estimate
    return f"{e.value:.2f}x [{e.low:.2f}, {e.high:.2f}] ({e.coverage:.0%} interval, {e.turns} turns)"


def figure(value: float | None) -> str:
    """Return a number with three digits that count."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def verdict_texts(found: Sequence[Verdict]) -> tuple[str, ...]:
    """Say for each network and rival how much better the best engine is."""
    return tuple(_verdict_text(verdict) for verdict in found)


def _verdict_text(v: Verdict) -> str:
    best, rival = (f"{cell.subject.engine} at batch {cell.batch}" for cell in (v.best, v.rival))
    of = f"{v.network} {v.precision}: "
    if not v.ratio.side_by_side:
        return f"{of}{best} and {rival} are not compared: they were measured in different runs"
    noise = _UNRELIABLE if v.noisy else ""
    return f"{of}{best} makes {interval_text(v.ratio)} the {v.ratio.of} of {rival}{_hoped(v)}{noise}"


def _hoped(verdict: Verdict) -> str:
    if verdict.wanted is None:
        return "; energy was not measured"
    low, high = verdict.ratio.estimate.low, verdict.ratio.estimate.high
    said = "reached" if low >= verdict.wanted else "missed" if high < verdict.wanted else "not certain"
    said = "not certain" if verdict.noisy else said
    return f"; wanted {verdict.wanted:g}x: {said}"


def remarks(lines: Sequence[Line]) -> tuple[str, ...]:
    """Say what failed, what never settled, what a GPU was held back by, and whether the machine was quiet."""
    apart = any(ratio and not ratio.side_by_side for line in lines for ratio in (line.speed, line.thrift))
    unsettled = _names(lines, lambda x: x.record.start is not None and not x.record.start.settled)
    throttled = _names(lines, lambda x: any(turn.throttled for turn in x.record.turns))
    return (
        *failures(lines),
        *(["* no ratio: not measured side by side with the baseline, but in another run"] if apart else []),
        *([f"the warm-up never settled: {unsettled}"] if unsettled else []),
        *([f"below its clock in some turns ({_reasons(lines)}): {throttled}"] if throttled else []),
        noise_text(lines),
    )


def failures(lines: Sequence[Line]) -> tuple[str, ...]:
    """Say what failed and why, the batch sizes of one reason together."""
    reasons: dict[tuple[Subject, str], list[str]] = {}
    for line in lines:
        if line.record.failure:
            reasons.setdefault((line.cell.subject, line.record.failure), []).append(str(line.cell.batch))
    return tuple(
        f"failed: {subject}, batch {', '.join(batches)}: {reason}"
        for (subject, reason), batches in reasons.items()
    )


def noise_text(lines: Sequence[Line]) -> str:
    """Say whether the two halves of the turns agree."""
    noisy, told = noisy_share(lines)
    if not told:
        return "noise: too few turns to tell (4 are needed)"
    worst = max((line.apart or 0.0) for line in lines)
    if not noisy:
        return f"noise: the two halves of the turns agree within {NOISE_ALLOWED:.0%} (largest {worst:.1%})"
    names = _names(lines, lambda line: line.noisy)
    return (
        f"the machine was too noisy: the medians of the two halves of the turns differ by more than "
        f"{NOISE_ALLOWED:.0%} in {noisy} of {told} cells (largest {worst:.0%}): {names}. End what else runs, "
        "or measure longer with --turns or --window"
    )


def no_joules_text(lines: Sequence[Line]) -> str:
    """Say of what no energy was measured, and why; empty where all of it was."""
    without = [line for line in lines if line.images_per_s and not line.joules_per_image]
    if not without:
        return ""
    if len(without) == len([line for line in lines if line.images_per_s]):
        return f"{NOT_MEASURED}: no energy counter on this machine{_of_side(without)}"
    names = dict.fromkeys(str(line.cell.subject) for line in without)
    return f"{NOT_MEASURED}: {'; '.join(names)}: no energy counter on this machine{_of_side(without)}"


def _of_side(lines: Sequence[Line]) -> str:
    """Name what lacks a counter where that is one: the CPU and the GPU have counters of their own."""
    sides = {line.record.start.on_gpu for line in lines if line.record.start}
    return "" if len(sides) != 1 else " for the GPU" if sides.pop() else " for the CPU"


def missing_texts(missing: Mapping[str, str]) -> tuple[str, ...]:
    """Say which engines did not take part, and what to install."""
    return tuple(f"not compared: {reason}" for reason in missing.values())


def _names(lines: Sequence[Line], which: Callable[[Line], bool]) -> str:
    names = [f"{line.cell.subject} b{line.cell.batch}" for line in lines if which(line)]
    more = len(names) - _NAMES_SHOWN
    return "; ".join(names[:_NAMES_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _reasons(lines: Sequence[Line]) -> str:
    return ", ".join(
        sorted({turn.throttled for line in lines for turn in line.record.turns if turn.throttled})
    )
