"""The report as tables of text, which a terminal and a markdown file show alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.tournament.figures import Figure
from bench.tournament.standings import Line
from bench.tournament.summary import Summary

NO_FIGURE = "-"


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table. The first `text_columns` columns are text, the others figures; `notes` stand below it."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1
    notes: Sequence[str] = ()


def tables_of(summary: Summary) -> Iterator[TextTable]:
    """Yield the tables of a report, those that are empty left out."""
    candidates = (
        _figures(summary.figures),
        _standings(summary),
        _beaten(summary),
        _ours(summary),
        _by_form(summary),
        _caps(summary),
        _cap_by_traffic(summary),
        _failures(summary),
    )
    return (table for table in candidates if table.rows)


def long_tables_of(summary: Summary) -> Iterator[TextTable]:
    """Yield the tables that are too long for a terminal: every answer, every policy in every cell."""
    return (table for table in (_questions(summary), _cells(summary.lines)) if table.rows)


def _cells(lines: Sequence[Line]) -> TextTable:
    header = (
        "cell", "policy", "revenue", "default's", "oracle's", "over oracle's", "of attainable gain", "late",
        "J/image", "J saved on default", "clock changes", "decide p99 ms",
    )  # fmt: skip
    return TextTable("Every policy in every cell (simulated)", header, [_line(line) for line in lines], 2)


def _line(line: Line) -> Sequence[str]:
    return (
        str(line.cell),
        line.policy,
        _money(line.revenue),
        _money(line.default_revenue),
        _money(line.oracle_revenue),
        _ratio(line.ratio),
        "too little to gain" if line.gain_share is None else _ratio(line.gain_share),
        percent(line.late_share, 2),
        NO_FIGURE if line.joules_per_image is None else f"{line.joules_per_image:.4g}",
        percent(line.saving),
        str(line.clock_changes),
        f"{line.decide_us_p99 / 1e3:.2f}",
    )


def _figures(figures: Sequence[Figure]) -> TextTable:
    rows = [
        (figure.name, figure.note, _value(figure.value), figure.bound, mark(figure.reached))
        for figure in figures
    ]
    header = ("figure", "over", "value", "target", "")
    return TextTable("Figures to reach (simulated)", header, rows, 2)


def mark(reached: bool | None) -> str:
    """Return whether a target was reached, in a word; nothing where there is nothing to reach."""
    return {None: "", True: "reached", False: "missed"}[reached]


def _standings(summary: Summary) -> TextTable:
    header = (
        "policy", "cells", "revenue over oracle's", "lowest", "of gain, steady", "of gain, changing", "late",
        "latest cell", "J saved", "clock changes/min", "decide p99 ms", "beats ours in",
    )  # fmt: skip
    rows = [
        (
            one.policy,
            str(one.cells),
            _ratio(one.ratio),
            _ratio(one.ratio_lowest),
            _ratio(one.steady_gain),
            _ratio(one.changing_gain),
            percent(one.late_share, 2),
            percent(one.late_share_highest, 2),
            percent(one.saving),
            NO_FIGURE if one.clock_changes_per_minute is None else f"{one.clock_changes_per_minute:.1f}",
            NO_FIGURE if one.decide_us_p99 is None else f"{one.decide_us_p99 / 1e3:.2f}",
            percent(one.beats_ours),
        )
        for one in summary.standings
    ]
    note = (
        "Means over cells. The oracle is the best single (batch limit, clock) in hindsight; of gain: "
        "(revenue - default's) / (oracle's - default's), over cells where that says something; J saved: "
        "joules per image against the default setting; beats ours: by more than 0.5 %."
    )
    return TextTable("Policies (simulated)", header, rows, notes=(note,))


def _beaten(summary: Summary) -> TextTable:
    rows = [
        (str(beaten.cell), beaten.why.rival, str(beaten.why), percent(beaten.why.lead))
        for beaten in sorted(summary.beaten, key=lambda beaten: -beaten.why.lead)
    ]
    header = ("cell", "rival", "why", "lead")
    return TextTable("Where a rival earns more than ours, and why (simulated)", header, rows, 3)


def _ours(summary: Summary) -> TextTable:
    rows = [
        (
            one.axis,
            one.place,
            str(one.cells),
            _ratio(one.ratio),
            _ratio(one.gain_share),
            _ratio(one.gain_share_lowest),
            percent(one.late_share_highest, 2),
            percent(one.saving),
        )
        for one in summary.ours
    ]
    header = ("axis", "", "cells", "over oracle's", "of gain", "lowest", "latest cell", "J saved")
    return TextTable("Ours along the axes (simulated)", header, rows, 2)


def _by_form(summary: Summary) -> TextTable:
    rows = [
        (
            one.form,
            one.traffic,
            str(one.cells),
            percent(one.gain),
            percent(one.lowest),
            percent(one.highest),
        )
        for one in summary.by_form
    ]
    header = ("form", "traffic", "cells", "better by, mean", "lowest", "highest")
    title = "By how much the best setting beats the default one, by form (simulated)"
    return TextTable(title, header, rows, 2)


def _questions(summary: Summary) -> TextTable:
    rows = [
        (
            str(question.cell),
            question.form,
            question.best,
            f"{question.default_score:.4g}",
            f"{question.best_score:.4g}",
            percent(question.gain),
        )
        for question in summary.questions
    ]
    header = ("cell", "form", "best setting", "default's score", "best score", "better by")
    notes = (
        "Scores by `optimizer/revenue.py`, higher is better; not compared where the default misses the SLO.",
    )
    return TextTable("By how much the best setting beats the default one (simulated)", header, rows, 3, notes)


def _caps(summary: Summary) -> TextTable:
    rows = [
        (cap.gpu, model, f"{cap.cap_w:.0f}", percent(cap.cap_share), percent(excess, 2))
        for cap in summary.caps
        for model, excess in cap.excess.items()
    ]
    header = ("GPU", "network", "cap W", "of the limit", "J/image above its own optimum")
    title = "Joule Point's claim: one static cap a card, at constant full load (simulated)"
    worst = max((excess for cap in summary.caps for excess in cap.excess.values()), default=0.0)
    note = f"One cap a card is within {percent(worst, 2)} of every network's own optimum here."
    return TextTable(title, header, rows, 2, (note,))


def _cap_by_traffic(summary: Summary) -> TextTable:
    rows = [
        (
            one.traffic,
            {None: NO_FIGURE, True: "holds", False: "does not hold"}[one.holds],
            str(one.cells),
            percent(one.shortfall, 2),
            percent(one.shortfall_highest, 2),
            percent(one.excess, 2),
            percent(one.late_share, 2),
        )
        for one in summary.cap_by_traffic
    ]
    header = ("traffic", "the claim", "cells", "revenue missed", "most", "J/image above oracle's", "late")
    note = (
        "The cap is raised where it would not hold the SLO at the traffic's highest rate. The claim holds "
        "where both differences to the best fixed setting are within 1 %, means over cells."
    )
    return TextTable("The same cap under the tournament's traffic (simulated)", header, rows, 2, (note,))


def _failures(summary: Summary) -> TextTable:
    rows = [(str(failure.cell), failure.policy or "all", failure.error) for failure in summary.failures]
    return TextTable("Could not be simulated", ("cell", "policy", "why"), rows, 3)


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share in percent."""
    return NO_FIGURE if value is None else f"{100.0 * value:.{digits}f} %"


def _ratio(value: float | None) -> str:
    return NO_FIGURE if value is None else f"{value:.3f}"


def _money(value: float) -> str:
    return f"{value:.4g}"


def _value(value: float | None) -> str:
    return "nothing to compute it from" if value is None else f"{value:.4g}"
