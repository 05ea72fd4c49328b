"""The price of serving over gRPC: Boulton against a bare echo server, for a network that costs microseconds.

Same client, same messages, in turns. The echo server answers a constant, with no parsing and no batching; the
better of gRPC's asyncio and threaded servers counts. CPU per request is what /proc says the server's
process used, less what ONNX Runtime alone uses for the same batches.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from bench.serving import command
from bench.serving.client import Load, Measurement, measure
from bench.serving.engine_alone import measure_alone
from bench.serving.messages import infer_request
from bench.serving.networks import INPUT, images, write_repository
from bench.serving.processes import Server
from bench.serving.questions import Executed, read_executed
from bench.serving.report import Figure, Result
from bench.serving.rounds import Spread, best, in_turns, ratio
from bench.serving.settings import Settings
from bench.serving.subjects import BARE_ECHOES, ECHO_FORMS, boulton, echoes

CPU_LIMIT = 1.25
OURS = "boulton"


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of message. `at_least` is the target against the echo server, where there is one."""

    name: str
    datatype: str
    images: int
    concurrency: int
    at_least: float | None

    @property
    def model(self) -> str:
        """The network that reads these messages."""
        return f"negligible-{self.datatype.lower()}"


CASES = (
    Case("UINT8, single images", "UINT8", 1, 32, 0.80),
    Case("FP32, single images", "FP32", 1, 32, None),
    Case("FP32, batches of 8", "FP32", 8, 8, 0.90),
)


@dataclass(frozen=True, slots=True)
class Served:
    """A measurement of our server, with what it executed meanwhile."""

    measurement: Measurement
    executed: Executed


def run(settings: Settings, console: Console) -> Result:
    """Measure all cases."""
    with tempfile.TemporaryDirectory() as directory:
        repository = write_repository(Path(directory))
        models = sorted({case.model for case in CASES})
        with boulton(repository, models) as server, echoes(list(ECHO_FORMS)) as echo_servers:
            figures = []
            for case in CASES:
                console.print(f"{case.name}, concurrency {case.concurrency}", style="bold")
                figures += _measure_case(case, server, echo_servers, repository, settings, console)
    conditions = (
        "client, servers and engine share all cores; one engine thread; one channel",
        "tuned: the echo server with uvloop and freed pages kept, as Boulton runs (for information)",
        "rates include the warm client; every server answers every request or the run fails",
    )
    return Result("wire", "Against a bare echo server in Python gRPC", figures, conditions)


def _measure_case(
    case: Case,
    server: Server,
    echo_servers: dict[str, Server],
    repository: Path,
    settings: Settings,
    console: Console,
) -> list[Figure]:
    message = infer_request(case.model, INPUT, images(case.datatype, case.images))
    load = Load([message] * case.concurrency, settings.seconds, case.images)
    subjects: dict[str, Callable[[], Served]] = {
        name: partial(_measure_echo, echo, load) for name, echo in echo_servers.items()
    }
    subjects[OURS] = partial(_measure_ours, server, case.model, load)
    found = in_turns(subjects, settings.rounds, console)
    return _figures(case, found, _engine_cpu_us(case, found[OURS], repository, settings))


def _measure_echo(server: Server, load: Load) -> Served:
    return Served(measure(server, load), Executed(0, 0))


def _measure_ours(server: Server, model: str, load: Load) -> Served:
    before = read_executed(server.url, model)
    measurement = measure(server, load)
    return Served(measurement, read_executed(server.url, model).since(before))


def _engine_cpu_us(case: Case, ours: Sequence[Served], repository: Path, settings: Settings) -> list[float]:
    """CPU time of the engine alone per request, for each round's mean batch."""
    batches = [max(1, round(served.executed.mean_batch)) for served in ours]
    path = repository / case.model / "1" / "model.onnx"
    alone = {
        batch: measure_alone(path, batch, threads=1, seconds=min(2.0, settings.seconds))
        for batch in set(batches)
    }
    return [alone[batch].cpu_us_per_batch * case.images / batch for batch in batches]


def _figures(case: Case, found: dict[str, list[Served]], engine_us: Sequence[float]) -> list[Figure]:
    rates = {name: [one.measurement.requests_per_s for one in rounds] for name, rounds in found.items()}
    cpu_us = {name: [one.measurement.server_cpu_us for one in rounds] for name, rounds in found.items()}
    own_us = [total - engine for total, engine in zip(cpu_us[OURS], engine_us, strict=True)]
    echo = best({name: rates[name] for name in BARE_ECHOES})
    tuned = best({name: rates[name] for name in ECHO_FORMS if name not in BARE_ECHOES})
    mean_batch = [served.executed.mean_batch for served in found[OURS]]
    return [
        Figure(f"{case.name}: Boulton", Spread.of(rates[OURS]), "requests/s"),
        Figure(f"{case.name}: {echo}", Spread.of(rates[echo]), "requests/s"),
        Figure(f"{case.name}: of {echo}", ratio(rates[OURS], rates[echo]), "x", at_least=case.at_least),
        Figure(f"{case.name}: of {tuned}", ratio(rates[OURS], rates[tuned]), "x"),
        Figure(f"{case.name}: mean batch", Spread.of(mean_batch), "images"),
        Figure(f"{case.name}: engine's CPU", Spread.of(list(engine_us)), "us/request"),
        Figure(f"{case.name}: CPU less the engine's", Spread.of(own_us), "us/request"),
        Figure(f"{case.name}: {echo}'s CPU", Spread.of(cpu_us[echo]), "us/request"),
        Figure(f"{case.name}: CPU of {echo}'s", ratio(own_us, cpu_us[echo]), "x", at_most=CPU_LIMIT),
    ]


if __name__ == "__main__":
    command.main(run, __doc__)
