"""The comparison as one HTML file: tables, and plots of what decides between engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from bench.compare.conditions import Conditions
from bench.compare.estimates import Estimate
from bench.compare.summary import Line, Verdict, noisy_share, pareto
from bench.compare.tables import (
    START_HEADINGS,
    explained,
    figure,
    main_table,
    missing_texts,
    no_joules_text,
    noise_text,
    remarks,
    start_rows,
    verdict_texts,
)
from bench.report.markup import figure as drawing
from bench.report.markup import heading, listing, note, paragraph, table
from bench.report.page import Section, page
from bench.report.plot import Axis, Point, Series, plot

_JOULES, _FRONT = "Joules per image against batch", "Pareto front of latency and energy"
_Figure = Callable[[Line], Estimate | None]


def report(
    lines: Sequence[Line],
    found: Sequence[Verdict],
    missing: Mapping[str, str],
    conditions: Conditions,
) -> str:
    """Return the whole document."""
    networks = dict.fromkeys(line.cell.subject.network for line in lines)
    sections = [
        _findings(lines, found, missing, conditions),
        *(
            _network(name, [x for x in lines if x.cell.subject.network == name], conditions)
            for name in networks
        ),
        _method(conditions),
    ]
    return page("Engines compared", sections, lead=f"{conditions.hardware}. {conditions.date}.")


def _findings(
    lines: Sequence[Line],
    found: Sequence[Verdict],
    missing: Mapping[str, str],
    conditions: Conditions,
) -> Section:
    noise = noise_text(lines)
    said = [text for text in remarks(lines) if text != noise]
    parts = (
        note(noise) if noisy_share(lines)[0] else paragraph(noise),
        *(note(text) for text in conditions.notes),
        listing(verdict_texts(found)),
        listing([*said, *conditions.unavailable]),
        listing(missing_texts(missing)),
    )
    return Section("Findings", parts)


def _network(name: str, lines: Sequence[Line], conditions: Conditions) -> Section:
    measured = [line for line in lines if line.images_per_s]
    headings, rows = main_table(lines)
    caption = explained(lines, conditions.baseline)
    tables = (
        table(headings, rows, caption, left=2),
        table(
            START_HEADINGS,
            start_rows(lines),
            "Memory (the most at any of the batch sizes) and start-up",
            left=3,
        ),
    )
    files = [file for file in conditions.files if file.network == name]
    notes = [f"{file.precision}: {text}" for file in files for text in (file.fidelity, *file.notes) if text]
    return Section(name, (listing(notes), *_plots(measured, conditions), *tables))


def _plots(lines: Sequence[Line], conditions: Conditions) -> Iterator[str]:
    if not lines:
        return
    yield _against_batch(lines, "Throughput against batch", "images/s", lambda line: line.images_per_s)
    yield _against_batch(lines, "Latency against batch", "ms a batch", lambda line: line.p50_ms)
    lacking = no_joules_text(lines)
    if any(line.joules_per_image for line in lines):
        yield _against_batch(lines, _JOULES, "J/image", lambda line: line.joules_per_image)
        yield _front(lines)
        yield from [note(lacking)] if lacking else []
    else:
        for title in (_JOULES, _FRONT):
            yield heading(title) + note(lacking)
    yield from _accuracy(lines, conditions)


def _against_batch(lines: Sequence[Line], title: str, unit: str, value: _Figure) -> str:
    subjects = dict.fromkeys(line.cell.subject for line in lines)
    series = [
        Series(
            f"{subject.engine} {subject.precision}",
            tuple(
                _point(x, e, unit) for x in lines if x.cell.subject == subject and (e := value(x)) is not None
            ),
        )
        for subject in subjects
    ]
    batches = tuple(float(batch) for batch in sorted({line.cell.batch for line in lines}))
    picture = plot(title, Axis("batch", log=True, marks=batches), Axis(unit, log=True), series)
    return drawing(picture, f"{title}: median over the turns, bars show its interval.")


def _point(line: Line, estimate: Estimate, unit: str) -> Point:
    subject = line.cell.subject
    what = f"{subject.engine} {subject.precision}, batch {line.cell.batch}"
    interval = f"[{figure(estimate.low)}, {figure(estimate.high)}]"
    tip = f"{what}: {figure(estimate.value)} {unit} {interval}"
    return Point(float(line.cell.batch), estimate.value, estimate.low, estimate.high, tip)


def _front(lines: Sequence[Line]) -> str:
    both = [(line, line.p50_ms, line.joules_per_image) for line in lines]
    subjects = dict.fromkeys(line.cell.subject for line in lines)
    series = [
        Series(
            f"{subject.engine} {subject.precision}",
            tuple(_place(x, p, j) for x, p, j in both if x.cell.subject == subject and p and j),
            line=False,
        )
        for subject in subjects
    ]
    best = tuple(
        _place(x, x.p50_ms, x.joules_per_image) for x in pareto(lines) if x.p50_ms and x.joules_per_image
    )
    series.append(Series("Pareto front", best, dots=False))
    picture = plot(_FRONT, Axis("ms a batch", log=True), Axis("J/image", log=True), series)
    return drawing(picture, "Each dot is a cell; no cell beats those on the line in both latency and energy.")


def _place(line: Line, latency: Estimate, joules: Estimate) -> Point:
    subject = line.cell.subject
    what = f"{subject.engine} {subject.precision}, batch {line.cell.batch}"
    tip = f"{what}: {figure(latency.value)} ms, {figure(joules.value)} J/image"
    return Point(latency.value, joules.value, joules.low, joules.high, tip)


def _accuracy(lines: Sequence[Line], conditions: Conditions) -> Iterator[str]:
    """Each engine's best throughput in each precision, over how true that is to float32."""
    network = lines[0].cell.subject.network
    true = {
        f.precision: 1.0 if f.agreement is None else f.agreement
        for f in conditions.files
        if f.network == network
    }
    if len(true) < 2:
        return
    engines = dict.fromkeys(line.cell.subject.engine for line in lines)
    series = [Series(engine, tuple(_best_of(lines, engine, true))) for engine in engines]
    picture = plot(
        "Precision: throughput against accuracy",
        Axis("agreement with float32", from_zero=False),
        Axis("images/s"),
        series,
    )
    yield drawing(
        picture,
        "The best batch size of each precision. Agreement: share of pictures with the same first class as in "
        "float32, which counts as 1.",
    )


def _best_of(lines: Sequence[Line], engine: str, true: Mapping[str, float]) -> Iterator[Point]:
    for precision, agreement in sorted(true.items(), key=lambda pair: pair[1]):
        own = [
            line.images_per_s
            for line in lines
            if (line.cell.subject.engine, line.cell.subject.precision) == (engine, precision)
            and line.images_per_s
        ]
        if own:
            best = max(own, key=lambda estimate: estimate.value)
            tip = f"{engine} {precision}: agreement {agreement:.3f}, {figure(best.value)} images/s"
            yield Point(agreement, best.value, best.low, best.high, tip)


def _method(conditions: Conditions) -> Section:
    versions = [
        f"{engine}: {', '.join(f'{name} {number}' for name, number in packages.items())}"
        for engine, packages in conditions.versions.items()
    ]
    files = [
        f"{file.network} {file.precision}: {file.path.name}, SHA-256 {file.sha256}"
        for file in conditions.files
    ]
    machine = str(conditions.machine).splitlines()
    parts = (*map(paragraph, conditions.method), listing([*machine, *versions, *files]))
    return Section("Method", (*parts, paragraph(f"Command: {conditions.command}")))
