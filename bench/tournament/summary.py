"""What a tournament says: figures against their targets, policies, rivals that won, the paper's question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bench.tournament import judging
from bench.tournament.figures import Figure
from bench.tournament.goals import figures_of
from bench.tournament.joule_point import OneCap
from bench.tournament.plan import OURS, Cell
from bench.tournament.questions import ByForm, ByTraffic, Question, by_form, by_traffic, questions_of
from bench.tournament.results import Failure, Ground, Played
from bench.tournament.standings import Line, OursAlong, Standing, line_of, ours_along, standing_of


@dataclass(frozen=True, slots=True)
class Beaten:
    """A cell in which a rival earned more than half a percent more than ours."""

    cell: Cell
    why: judging.Why


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything the tournament reports. All of it simulated."""

    figures: Sequence[Figure]
    standings: Sequence[Standing]
    beaten: Sequence[Beaten]
    ours: Sequence[OursAlong]
    questions: Sequence[Question]
    by_form: Sequence[ByForm]
    caps: Sequence[OneCap]
    cap_by_traffic: Sequence[ByTraffic]
    lines: Sequence[Line]
    failures: Sequence[Failure]
    codes: Sequence[str] = field(default_factory=tuple)


def summarise(
    grounds: Sequence[Ground],
    played: Sequence[Played],
    failures: Sequence[Failure],
    caps: Sequence[OneCap],
    duration_s: float,
) -> Summary:
    """Judge all results. Runs whose cell has no ground are left out."""
    by_cell = {ground.cell: ground for ground in grounds}
    runs = [run for run in played if run.cell in by_cell]
    lines = [line_of(by_cell[run.cell], run) for run in runs]
    policies = list(dict.fromkeys(run.policy for run in runs))
    standings = [standing_of(policy, lines, duration_s) for policy in policies]
    questions = tuple(questions_of(grounds))
    return Summary(
        figures=tuple(figures_of(by_cell, runs, lines, standings)),
        standings=sorted(standings, key=lambda standing: -(standing.ratio or 0.0)),
        beaten=tuple(_beaten(runs)),
        ours=tuple(ours_along([line for line in lines if line.policy == OURS])),
        questions=questions,
        by_form=tuple(by_form(questions)),
        caps=tuple(caps),
        cap_by_traffic=tuple(by_traffic(grounds)),
        lines=lines,
        failures=tuple(failures),
        codes=sorted({ground.code for ground in grounds} | {run.code for run in runs}),
    )


def _beaten(runs: Sequence[Played]) -> Iterator[Beaten]:
    ours = {run.cell: run for run in runs if run.policy == OURS}
    for run in runs:
        if run.policy != OURS and run.cell in ours:
            why = judging.why_beaten(ours[run.cell], run)
            if why is not None:
                yield Beaten(run.cell, why)
