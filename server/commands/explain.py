"""Explain decisions of the governor: what was expected of the choice and of its runners-up, and why.

The last decision, or the last N with `--last N`; with `--learned` what the policy knows, in words, or with
`--json` all of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from optimizer.surge import Tripwire
from protos import boulton_pb2 as pb
from server.client.operator import OperatorClient, add_operator_arguments, ask_operator, point_of
from server.commands.learned import learned_json, learned_lines
from server.errors import ConfigError
from server.logs import escape

MOST = 600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton explain` takes."""
    add = parser.add_argument
    add("--last", type=int, default=1, metavar="N", help="explain the last N decisions (default: 1)")
    add("--learned", action="store_true", help="show what the policy has learned instead")
    add("--json", action="store_true", help="with --learned: print all that the policy saves, as JSON")
    add_operator_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Explain; 1 when the server cannot be reached or refuses. Raises `ConfigError`."""
    if not 1 <= arguments.last <= MOST:
        raise ConfigError(f"--last must be a whole number, 1 to {MOST}, got {arguments.last}")
    if arguments.json and not arguments.learned:
        raise ConfigError("--json goes with --learned: decisions are explained in words alone")
    return ask_operator(arguments, lambda operator: _print(operator, arguments))


def _print(operator: OperatorClient, arguments: argparse.Namespace) -> None:
    if arguments.json:
        print(learned_json(operator.learned()))
        return
    learned = arguments.learned
    lines = learned_lines(operator.learned()) if learned else _explained(operator, arguments.last)
    for line in lines:
        print(escape(line))


def _explained(operator: OperatorClient, count: int) -> Iterator[str]:
    decisions = operator.decisions(count)
    if not decisions:
        yield "no decision yet; the first comes an interval after the start"
    for decision in decisions:
        yield from decision_lines(decision)


def decision_lines(decision: pb.Decision) -> Iterator[str]:
    """Say what one decision rested on, line by line."""
    yield f"{_local_time(decision.decided_unix_s)}  {decision.model}: {_chosen(decision)}"
    yield f"  why       {decision.reason}"
    if decision.HasField("infeasible"):
        yield f"  cannot be kept: {decision.infeasible}"
    yield from _table(decision)
    if decision.HasField("alarm"):
        yield f"  alarm     {_alarm(decision.alarm)}"
    if decision.learned:
        yield f"  learned   {decision.learned}"
    if decision.error:
        yield f"  refused   {decision.error}"
    yield f"  measured  {decision.line.rpartition(' | ')[2]}"


def _chosen(decision: pb.Decision) -> str:
    if decision.HasField("pinned"):
        return f"{point_of(decision.pinned)}, pinned; the policy would take {point_of(decision.point)}"
    if decision.held_back:
        return f"the default setting, held for comparison; the policy would take {point_of(decision.point)}"
    return f"{point_of(decision.point)}{', paused' if decision.paused else ''}"


def _alarm(alarm: pb.Alarm) -> str:
    wire = Tripwire(alarm.queued_images)
    if alarm.HasField("burst_images"):
        wire = replace(wire, rate_per_s=alarm.rate_per_s, burst_images=alarm.burst_images)
    return f"{wire}: {point_of(alarm.refuge)}"


def _table(decision: pb.Decision) -> Iterator[str]:
    """The choice and the others side by side; nothing where nothing was predicted."""
    rows = list(_predicted(decision))
    if rows:
        width = max(len(point) for point, *_ in rows)
        unit = "revenue/h" if decision.revenue.form in ("", "profit") else decision.revenue.form
        yield f"  {'expected':9} {'':{width}}  {unit:>12}  {'p99 ms':>8}  {'watts':>7}"
        for number, (point, revenue, p99, power) in enumerate(rows):
            place = "choice" if number == 0 else f"next {number}"
            yield f"  {place:9} {point:{width}}  {revenue:>12}  {p99:>8}  {power:>7}"


def _predicted(decision: pb.Decision) -> Iterator[tuple[str, str, str, str]]:
    if not decision.HasField("predicted_revenue_per_s"):
        return
    factor = 3600.0 if decision.revenue.form in ("", "profit") else 1.0
    p99 = f"{decision.predicted_p99_ms:.1f}" if decision.HasField("predicted_p99_ms") else "-"
    power = f"{decision.predicted_power_w:.0f}" if decision.HasField("predicted_power_w") else "-"
    yield str(point_of(decision.point)), f"{decision.predicted_revenue_per_s * factor:.6g}", p99, power
    for other in decision.alternatives:
        power = f"{other.power_w:.0f}" if other.HasField("power_w") else "-"
        yield str(point_of(other.point)), f"{other.revenue_per_s * factor:.6g}", f"{other.p99_ms:.1f}", power
    if not decision.alternatives and decision.HasField("runner_up"):
        yield str(point_of(decision.runner_up)), f"{decision.runner_up_revenue_per_s * factor:.6g}", "-", "-"


def _local_time(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).astimezone().strftime("%H:%M:%S")
