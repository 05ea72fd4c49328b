"""Apply a load to a server of the Open Inference Protocol and report latency and throughput.

In a closed loop each client sends its next request after the answer. In an open loop (Poisson, trace)
requests are due whatever the server does, and latency counts from the time a request was due.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

from bench.flags import number, whole
from bench.load.arrivals import load_trace
from bench.load.plan import Arrivals, Closed, LoadPlan, Pictures, Poisson, Trace
from bench.load.processes import run_load
from bench.load.progress import load_progress
from bench.load.report import Report, as_json, as_text, make_report
from bench.output import check_writable
from server.client.endpoint import ServerRefused, ServerUnreachable, add_endpoint_arguments, endpoint_from
from server.errors import ConfigError
from server.logs import escape

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
DEFAULT_CONCURRENCY = 8
MAX_DURATION_S = 7 * 86400.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton load` takes."""
    add_endpoint_arguments(parser)
    _add_arrivals(parser)
    _add_requests(parser)
    add = parser.add_argument
    add("--duration", type=number(0.0, MAX_DURATION_S), metavar="S", help="what is measured (default: 10)")
    add("--warmup", type=number(0.0, 3600.0, zero=True), metavar="S", help="sent before it (default: 1)")
    add("--drain", type=number(0.0, 3600.0), default=10.0, metavar="S", help=_DRAIN)
    add("--slo-ms", type=number(0.0, math.inf), metavar="MS", help="later answers are late")
    add(
        "--timeout-ms",
        type=number(0.0, 3.6e6),
        metavar="MS",
        help="deadline of each request (default: none)",
    )
    add("--processes", type=whole(1, 64), default=1, metavar="N", help="generator processes (default: 1)")
    add("--seed", type=whole(0, 2**31), default=0, metavar="N", help="of arrivals and random input")
    add("--json", type=Path, metavar="FILE", help="write the report as JSON; - is standard output")


def _add_arrivals(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    closed = f"closed loop with so many clients (default: {DEFAULT_CONCURRENCY})"
    group.add_argument("--closed", type=whole(1, 100_000), metavar="N", help=closed)
    rate = number(0.0, 1e6)
    group.add_argument("--poisson", type=rate, metavar="RATE", help="open loop, random, requests a second")
    group.add_argument("--trace", type=Path, metavar="CSV", help="open loop, columns time_s,images")
    bound = "open loop: requests under way beyond which new ones are dropped (default: 1000)"
    parser.add_argument("--max-in-flight", type=whole(1, 100_000), default=1000, metavar="N", help=bound)


def _add_requests(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="the model's name on the server")
    add("--batch", type=whole(1, 65536), metavar="N", help=_BATCH)
    add("--input", nargs="+", default=["random"], metavar="WHAT", help=_INPUT)
    add("--encoded", action="store_true", help="send files as they are; the server decodes them")
    add("--shared-memory", action="store_true", help="inputs travel in system shared memory")


_DRAIN = "how long to wait for the last answers (default: 10)"
_BATCH = "images in each request (default: 1; traces have their own numbers, cut to N where it is given)"
_INPUT = "random (default), zeros, or JPEG and PNG files, which are fitted to the model's input"


def run(arguments: argparse.Namespace) -> int:
    """Run and report: 1 when no request was answered or the server refuses, 130 when interrupted."""
    plan = plan_from(arguments)
    check_writable(arguments.json, "--json")
    try:
        with load_progress(plan.warmup_s + plan.duration_s) as progress:
            report = make_report(plan, run_load(plan, progress.started, progress.tick))
    except (ServerUnreachable, ServerRefused) as error:
        print(f"boulton: {escape(str(error))}", file=sys.stderr)
        return EXIT_FAILED
    _say(report, arguments.json)
    if report.interrupted:
        return EXIT_INTERRUPTED
    return 0 if report.requests else EXIT_FAILED


def _say(report: Report, path: Path | None) -> None:
    """Text goes to standard output, unless JSON was asked for there."""
    text = json.dumps(as_json(report), indent=2)
    if path == Path("-"):
        print(text)
        print(as_text(report), file=sys.stderr)
        return
    print(as_text(report))
    if path is not None:
        path.write_text(text + "\n", encoding="utf-8")


def plan_from(arguments: argparse.Namespace) -> LoadPlan:
    """Turn flags into a plan. Raises `ConfigError` when they contradict each other or name unusable files."""
    arrivals = _arrivals(arguments)
    plan = LoadPlan(
        endpoint=endpoint_from(arguments),
        model=arguments.model,
        arrivals=arrivals,
        batch=arguments.batch,
        duration_s=10.0 if arguments.duration is None else arguments.duration,
        warmup_s=1.0 if arguments.warmup is None else arguments.warmup,
        drain_s=arguments.drain,
        timeout_s=None if arguments.timeout_ms is None else arguments.timeout_ms / 1e3,
        slo_ms=arguments.slo_ms,
        max_in_flight=arguments.max_in_flight,
        seed=arguments.seed,
        processes=_processes(arguments, arrivals),
        shared_memory=arguments.shared_memory,
        pictures=_pictures(arguments),
    )
    return _fit_trace(plan, arguments)


def _arrivals(arguments: argparse.Namespace) -> Arrivals:
    if arguments.poisson is not None:
        return Poisson(arguments.poisson)
    if arguments.trace is not None:
        return load_trace(arguments.trace)
    return Closed(arguments.closed or DEFAULT_CONCURRENCY)


def _processes(arguments: argparse.Namespace, arrivals: Arrivals) -> int:
    """No more processes than clients."""
    processes: int = arguments.processes
    if isinstance(arrivals, Closed) and processes > arrivals.concurrency:
        raise ConfigError(
            f"--processes {processes} is more than the {arrivals.concurrency} clients of --closed"
        )
    return processes


def _fit_trace(plan: LoadPlan, arguments: argparse.Namespace) -> LoadPlan:
    """A trace has its own length; a warm-up is cut from its start only where it was asked for."""
    if not isinstance(plan.arrivals, Trace):
        return plan
    length_s = plan.arrivals.arrivals[-1][0]
    warmup_s = arguments.warmup or 0.0
    if warmup_s > length_s:
        raise ConfigError(f"--warmup {warmup_s:g} is longer than the trace, {length_s:g} s")
    rest_s = max(length_s - warmup_s, 1e-3)
    if rest_s > MAX_DURATION_S:
        raise ConfigError(f"the trace lasts {length_s:g} s, at most {MAX_DURATION_S:g} s are replayed")
    return replace(plan, warmup_s=warmup_s, duration_s=min(rest_s, arguments.duration or math.inf))


def _pictures(arguments: argparse.Namespace) -> Pictures:
    if len(arguments.input) == 1 and arguments.input[0] in ("random", "zeros"):
        if arguments.encoded:
            raise ConfigError("--encoded needs --input FILE...")
        return Pictures(arguments.input[0])
    return Pictures("files", tuple(map(Path, arguments.input)), arguments.encoded)
