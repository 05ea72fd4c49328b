"""What front ends are worth: the daemon in one process and through several, against PyTriton; a client in C.

A client in Python takes a core for itself; on two cores it would hide what a second process can do. Bare echo
servers in as many processes, which share a port, parse nothing, run nothing and answer a constant, say what a
server could reach at most: on grpc.aio, and on the server that Boulton has of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from bench.peers import install
from bench.serving import command, h2load
from bench.serving.messages import infer_request, shared_memory_request
from bench.serving.networks import CHW, INPUT, images, write_repository
from bench.serving.peers import DATATYPES, MAX_BATCH, START, TARGETS, THREADS
from bench.serving.processes import Server, ServerFailed
from bench.serving.report import Figure, Result
from bench.serving.rounds import Spread, best, in_turns, ratio
from bench.serving.settings import Settings
from bench.serving.shared_memory import registered_regions
from bench.serving.subjects import boulton, echo
from server.engines.engine import Array

FRONT_ENDS = 2
ALONE, THROUGH = "boulton", f"boulton, {FRONT_ENDS} front ends"
PEER = "pytriton"
BOUNDS = {f"{form} echo, {FRONT_ENDS} processes": form for form in ("aio", "completions")}
WIRE, SHARED = "wire", "shared memory"


@dataclass(frozen=True, slots=True)
class Taken:
    """One measurement: requests/s, and the server's processor time for each, an engine's included."""

    requests_per_s: float
    cpu_us: float


def run(settings: Settings, console: Console) -> Result:
    """Measure both datatypes. Raises `ServerFailed` where h2load is missing."""
    if not h2load.available():
        raise ServerFailed("h2load is not installed; it is part of Debian's nghttp2-client")
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as directory:
        repository = write_repository(Path(directory))
        for datatype in DATATYPES:
            console.print(f"single {datatype} images", style="bold")
            figures += _figures(datatype, _measure(datatype, repository, settings, console))
    conditions = (
        f"h2load, {h2load.CONNECTIONS} connections with {h2load.CALLS_EACH} calls each in flight",
        f"a CNN of 1.2 million multiply-adds, {THREADS} engine thread, batches up to {MAX_BATCH}, no delay",
        "client, servers and engines share all cores",
    )
    notes = [] if _peer(settings) else [f"{PEER} is not installed in {settings.peers}: make bench-peers"]
    return Result("front_ends", "Through front ends", figures, conditions, notes)


def _peer(settings: Settings) -> bool:
    return install.interpreter(settings.peers, PEER).exists()


def _measure(datatype: str, repository: Path, settings: Settings, console: Console) -> dict[str, list[Taken]]:
    model, tensor = f"small-{datatype.lower()}", images(datatype, 1, CHW)
    flags = ("--shared-memory", "--max-batch", str(MAX_BATCH))
    with ExitStack() as stack:
        ours = {ALONE: (), THROUGH: ("--front-ends", str(FRONT_ENDS))}
        servers = {
            name: stack.enter_context(boulton(repository, [model], *flags, *more, threads=THREADS))
            for name, more in ours.items()
        }
        if _peer(settings):
            servers[PEER] = stack.enter_context(START[PEER](repository, model, settings.peers))
        processes = ("--tuned", "--processes", str(FRONT_ENDS))
        bounds = {name: stack.enter_context(echo(name, form, *processes)) for name, form in BOUNDS.items()}
        subjects = {}
        for name, server in servers.items():
            (region,) = stack.enter_context(registered_regions(server.url, tensor, 1))
            for form, message in _messages(model, tensor, region).items():
                rate = partial(h2load.requests_per_s, server, model, message)
                subjects[_key(name, form)] = partial(_take, server, rate, settings.seconds)
        for form, message in _messages(model, tensor, "a-region-of-this-name").items():
            for name, server in bounds.items():
                rate = partial(h2load.echoes_per_s, server, message)
                subjects[_key(name, form)] = partial(_take, server, rate, settings.seconds)
        return in_turns(subjects, settings.rounds, console)


def _messages(model: str, tensor: Array, region: str) -> dict[str, bytes]:
    return {
        WIRE: infer_request(model, INPUT, tensor),
        SHARED: shared_memory_request(model, INPUT, tensor, region),
    }


def _take(server: Server, rate: Callable[[float], float], seconds: float) -> Taken:
    before_s = server.cpu_s()
    requests_per_s = rate(seconds)
    seconds_in_all = max(1, round(seconds)) + h2load.WARM_UP_S
    return Taken(requests_per_s, 1e6 * (server.cpu_s() - before_s) / (requests_per_s * seconds_in_all))


def _figures(datatype: str, found: Mapping[str, Sequence[Taken]]) -> list[Figure]:
    figures = []
    for name, taken in found.items():
        rates, cpu = [one.requests_per_s for one in taken], [one.cpu_us for one in taken]
        figures.append(Figure(f"{datatype}: {name}", Spread.of(rates), "requests/s"))
        figures.append(Figure(f"{datatype}: {name}: processor time", Spread.of(cpu), "us a request"))
    rate = {name: [one.requests_per_s for one in taken] for name, taken in found.items()}
    for form in (WIRE, SHARED):
        gain = ratio(rate[_key(THROUGH, form)], rate[_key(ALONE, form)])
        figures.append(Figure(f"{datatype}, {form}: {THROUGH}, of {ALONE}", gain, "x"))
    if _key(PEER, WIRE) in rate:
        figures += _against_peer(datatype, rate)
    return figures


def _against_peer(datatype: str, rate: Mapping[str, Sequence[float]]) -> list[Figure]:
    """Return the ratios; Boulton is judged in the faster of its ways, as an operator would run it here."""
    target, theirs = TARGETS[PEER], rate[_key(PEER, WIRE)]
    at_least = {WIRE: target.fp32 if datatype == "FP32" else target.uint8, SHARED: target.shared_memory}
    judged = {form: best({name: rate[_key(name, form)] for name in (ALONE, THROUGH)}) for form in at_least}
    return [
        Figure(
            f"{datatype}, {form}: {name}, of {PEER}'s wire",
            ratio(rate[_key(name, form)], theirs),
            "x",
            at_least[form] if name == judged[form] else None,
        )
        for form in at_least
        for name in (ALONE, THROUGH, *BOUNDS)
    ]


def _key(name: str, form: str) -> str:
    return f"{name}, {form}"


if __name__ == "__main__":
    command.main(run, __doc__)
