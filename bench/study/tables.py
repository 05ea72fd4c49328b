"""Findings as tables."""

from __future__ import annotations

from collections.abc import Sequence

from bench.study.claims import USED, Reproduced
from bench.study.findings import Compared, Findings, Related
from bench.study.quality import Check, Cleaned
from bench.study.runs import by_cell
from bench.study.sections import Table, Text, number, p_value, percent
from bench.study.statistics import Correlation


def claims(reproduced: Sequence[Reproduced]) -> tuple[Table, ...]:
    """Published savings beside those found."""
    if not reproduced:
        return ()
    rows = []
    for one in reproduced:
        name = f"{one.claim.dear} -> {one.claim.cheap}, {one.claim.gpu}"
        rows.append((name, one.claim.source, "published", percent(one.claim.saving, 2), ""))
        verdict = "reproduced" if one.held else "NOT reproduced"
        rows.append((name, "here", USED, percent(one.found.saving.share, 2), verdict))
        rows += [(name, "here", way, percent(share, 2), "") for way, share in one.others]
    return (Table("Published saving", ("networks", "who", "runs", "saving", ""), rows, left=3),)


def checks(found: Sequence[Check]) -> Table:
    """What was checked."""
    rows = [("ok" if one.passed else "see", one.name, one.finding) for one in found]
    return Table("Checks of the data", ("", "what", "finding"), rows, left=3)


def dropped(cleaned: Cleaned) -> tuple[Table | Text, ...]:
    """Runs that are not compared: counts for the terminal, each with its reason for the page."""
    if not cleaned.dropped:
        return (Text("No run is left out."),)
    counts = [
        (str(cell), str(len(own))) for cell, own in by_cell([one.run for one in cleaned.dropped]).items()
    ]
    each = [(str(one.run.cell), str(one.run.number), one.reason) for one in cleaned.dropped]
    return (
        Table(f"Left out: {len(each)} of {len(each) + len(cleaned.kept)} runs", ("cell", "runs"), counts),
        Table("Each with its reason", ("cell", "run", "reason"), each, left=3, brief=False),
    )


def cells(found: Findings) -> Table:
    """Every cell in medians."""
    cost = f"{found.unit} an image"
    headings = (
        *("device", "network", "batch", "runs", cost, "F1", "accuracy", "use", "GFLOPs", "seconds", "kJ"),
        "best",
    )
    rows = [
        (
            *(one.cell.gpu, one.cell.architecture, str(one.cell.batch_size), str(one.runs)),
            *(number(one.cost), number(one.f1, ".4f"), number(one.accuracy, ".4f")),
            *(percent(one.gpu_use, 0), number(one.gigaflops), number(one.seconds, ".4g")),
            *(number(one.joules and one.joules / 1e3, ".4g"), "yes" if one.best else ""),
        )
        for one in found.cells
    ]
    title = "Medians; best: no network on the device has both a better F1 and a cheaper image"
    return Table(title, headings, rows, left=2)


def exchanges(found: Findings) -> Table:
    """The dearest network for the cheapest."""
    rows = [
        (
            *(one.gpu, str(one.batch_size), f"{one.dear} -> {one.cheap}", percent(one.saving.share, 2)),
            *(f"{percent(one.saving.low)} to {percent(one.saving.high)}", number(one.f1_lost, ".4f")),
        )
        for one in found.exchanges
    ]
    headings = ("device", "batch", "instead of -> use", "saving", "95 % interval", "F1 lost")
    return Table(f"What the cheapest network saves of {found.measure}", headings, rows, left=3)


def related(title: str, found: Sequence[Related]) -> Table:
    """Correlations on every device."""
    headings = ("device", "rho over runs", "p", "runs", "rho over medians", "p", "cells")
    rows = [(one.gpu, *_rho(one.runs), *_rho(one.cells)) for one in found]
    return Table(title, headings, rows)


def compared(title: str, found: Sequence[Compared]) -> tuple[Table, ...]:
    """Kruskal-Wallis of every group, and Dunn's pairs for the page."""
    if not found:
        return ()
    rows = [
        (one.within, number(d.h, ".4g"), p_value(d.p_value), number(d.epsilon_squared, ".2f"), _apart(one))
        for one in found
        for d in (one.difference,)
    ]
    headings = ("under equal", "H", "p", "epsilon squared", "pairs that differ (p < 0.05)")
    pairs = [
        (one.within, pair.first, pair.second, p_value(pair.p_value), number(pair.delta, "+.2f"))
        for one in found
        for pair in one.difference.pairs
    ]
    names = ("under equal", "first", "second", "p (Dunn, Holm)", "Cliff's delta")
    return (
        Table(f"{title}: Kruskal-Wallis", headings, rows),
        Table(f"{title}: pairs", names, pairs, left=3, brief=False),
    )


def fits(found: Findings) -> tuple[Table, ...]:
    """Devices against networks."""
    if not found.fits:
        return ()
    rows = [
        (
            *(one.architecture, str(one.batch_size), one.gpu, percent(one.gpu_use, 0)),
            *(number(one.cost), f"{one.over_best:.2f}"),
        )
        for one in found.fits
    ]
    headings = ("network", "batch", "device", "use", f"{found.unit} an image", "over the best device's")
    trends = [(one.gpu, one.against, *_rho(one.correlation)) for one in found.fit_trends]
    against = ("on", "compared with", "rho", "p", "networks")
    title = "Use of the device against what an image costs there, over what it costs on the other"
    tables = (Table("Which device fits which network", headings, rows, left=3),)
    return (*tables, Table(title, against, trends, left=2)) if trends else tables


def _rho(one: Correlation) -> tuple[str, str, str]:
    return number(one.rho, "+.3f"), p_value(one.p_value), str(one.count)


def _apart(one: Compared) -> str:
    pairs = one.difference.pairs
    return f"{sum(pair.p_value < 0.05 for pair in pairs)} of {len(pairs)}"
