"""Boulton against other servers: the same ONNX file, the same engine threads, the same client and messages.

PyTriton (Triton's own core with a Python model) and MLServer, each in its own environment: `make bench-peers`
makes them. A peer that is not installed is left out, and said to be.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import grpc
from rich.console import Console

from bench.peers import install
from bench.serving import command
from bench.serving.client import Load, measure
from bench.serving.messages import infer_request, shared_memory_request
from bench.serving.networks import CHW, INPUT, images, write_repository
from bench.serving.processes import Server, free_port, running
from bench.serving.report import Figure, Result
from bench.serving.rounds import Spread, in_turns, ratio
from bench.serving.settings import Settings
from bench.serving.shared_memory import registered_regions
from bench.serving.subjects import boulton
from protos import grpc_service_pb2 as wire
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub

ADAPTERS = Path(install.__file__).parent
CONCURRENCY = 32
MAX_BATCH = 32
THREADS = 1
OURS = "boulton"
SHARED_MEMORY = ", shared memory"
STREAM = ", streams"
STREAMS = 4
ATTEMPTS = 3
DATATYPES = ("FP32", "UINT8")


@dataclass(frozen=True, slots=True)
class Target:
    """How many times a peer's requests/s Boulton shall answer."""

    fp32: float
    uint8: float
    shared_memory: float | None = None


TARGETS = {"pytriton": Target(1.6, 2.0, 4.0), "mlserver": Target(10.0, 10.0)}


def run(settings: Settings, console: Console) -> Result:
    """Measure Boulton and every installed peer on both datatypes."""
    present = [peer.name for peer in install.PEERS if install.interpreter(settings.peers, peer.name).exists()]
    missing = [peer.name for peer in install.PEERS if peer.name not in present]
    notes = [f"{name} is not installed in {settings.peers}: make bench-peers" for name in missing]
    figures: list[Figure] = []
    breaks: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as directory:
        repository = write_repository(Path(directory))
        for datatype in DATATYPES if present else ():
            console.print(f"single {datatype} images, concurrency {CONCURRENCY}", style="bold")
            figures += _measure(datatype, repository, present, settings, console, breaks)
    notes += [
        f"{name} broke {count} connections; these measurements were repeated"
        for name, count in breaks.items()
    ]
    conditions = (
        f"streams: {CONCURRENCY} requests in flight on {STREAMS} ModelStreamInfer streams",
        f"a CNN of 1.2 million multiply-adds, {THREADS} engine thread, batches up to {MAX_BATCH}, no delay",
        "client, servers and engines share all cores; MLServer runs its model in-process",
    )
    return Result("peers", "Against other servers", figures, conditions, notes)


def _measure(
    datatype: str,
    repository: Path,
    peers: Sequence[str],
    settings: Settings,
    console: Console,
    breaks: Counter[str],
) -> list[Figure]:
    model = f"small-{datatype.lower()}"
    tensor = images(datatype, 1, CHW)
    load = Load([infer_request(model, INPUT, tensor)] * CONCURRENCY, settings.seconds)
    with ExitStack() as stack:
        flags = ("--shared-memory", "--max-batch", str(MAX_BATCH))
        servers = {OURS: stack.enter_context(boulton(repository, [model], *flags, threads=THREADS))}
        for peer in peers:
            servers[peer] = stack.enter_context(START[peer](repository, model, settings.peers))
        rate = {peer: _patient(peer, breaks) for peer in peers} | {OURS: _requests_per_s}
        subjects = {name: partial(rate[name], server, load) for name, server in servers.items()}
        for name in sorted(servers.keys() - {"mlserver"}):
            server = servers[name]
            regions = stack.enter_context(registered_regions(server.url, tensor, CONCURRENCY))
            messages = [shared_memory_request(model, INPUT, tensor, region) for region in regions]
            shared = Load(messages, settings.seconds)
            subjects[name + SHARED_MEMORY] = partial(rate[name], server, shared)
            for form, calls in (("", load), (SHARED_MEMORY, shared)):
                streamed = replace(calls, streams=STREAMS)
                subjects[name + form + STREAM] = partial(rate[name], server, streamed)
        return _figures(datatype, in_turns(subjects, settings.rounds, console))


def _requests_per_s(server: Server, load: Load) -> float:
    return measure(server, load).requests_per_s


def _patient(peer: str, breaks: Counter[str]) -> Callable[[Server, Load], float]:
    """Measure again, and count it, when a peer breaks the connection; ours is given no second chance."""

    def rate(server: Server, load: Load) -> float:
        for _ in range(ATTEMPTS - 1):
            try:
                return _requests_per_s(server, load)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                breaks[peer] += 1
        return _requests_per_s(server, load)

    return rate


def _figures(datatype: str, found: dict[str, list[float]]) -> list[Figure]:
    figures = [Figure(f"{datatype}: {name}", Spread.of(rates), "requests/s") for name, rates in found.items()]
    for peer, target in TARGETS.items():
        if peer in found:
            figures += _ratios(datatype, peer, target, found)
    return figures


def _ratios(datatype: str, peer: str, target: Target, found: dict[str, list[float]]) -> list[Figure]:
    """Compare calls with calls and streams with streams; our shared memory with both of the peer's ways."""
    at_least = target.fp32 if datatype == "FP32" else target.uint8
    figures = []
    for form in ("", STREAM):
        if peer + form in found:
            wire = found[peer + form]
            figures.append(
                Figure(f"{datatype}{form}: of {peer}", ratio(found[OURS + form], wire), "x", at_least)
            )
    for form in ("", STREAM) if target.shared_memory is not None else ():
        ours, name = found[OURS + SHARED_MEMORY + form], f"{datatype}{SHARED_MEMORY}{form}"
        theirs = found[peer + SHARED_MEMORY + form]
        figures.append(
            Figure(f"{name}: of {peer}'s wire", ratio(ours, found[peer + form]), "x", target.shared_memory)
        )
        figures.append(Figure(f"{name}: of {peer}'s shared memory", ratio(ours, theirs), "x"))
    return figures


@contextmanager
def _pytriton(repository: Path, model: str, environments: Path) -> Iterator[Server]:
    port, http_port = free_port(), free_port()
    words = [model, str(_onnx(repository, model)), str(port), str(http_port), str(THREADS), str(MAX_BATCH)]
    python = install.interpreter(environments, "pytriton")
    command_ = [str(python), str(ADAPTERS / "pytriton_app.py"), *words]
    with tempfile.TemporaryDirectory() as home:
        environment = {"PYTRITON_HOME": home}
        with running("pytriton", command_, _when_ready(port, model), environment=environment) as server:
            yield server


@contextmanager
def _mlserver(repository: Path, model: str, environments: Path) -> Iterator[Server]:
    port = free_port()
    python = install.interpreter(environments, "mlserver")
    with tempfile.TemporaryDirectory() as home:
        _write_mlserver_settings(Path(home), port, model, _onnx(repository, model))
        command_ = [str(python.with_name("mlserver")), "start", home]
        environment = {"PYTHONPATH": str(ADAPTERS)}
        with running(
            "mlserver", command_, _when_ready(port, model), environment=environment, cwd=Path(home)
        ) as server:
            yield server


START = {"pytriton": _pytriton, "mlserver": _mlserver}


def _onnx(repository: Path, model: str) -> Path:
    return repository / model / "1" / "model.onnx"


def _write_mlserver_settings(home: Path, port: int, model: str, onnx_path: Path) -> None:
    settings = {
        "host": "127.0.0.1",
        "http_port": free_port(),
        "grpc_port": port,
        "metrics_port": free_port(),
        "parallel_workers": 0,
        "grpc_max_message_length": 64 << 20,
    }
    parameters = {"uri": str(onnx_path), "extra": {"threads": THREADS}}
    described = {
        "name": model,
        "implementation": "mlserver_runtime.OnnxModel",
        "max_batch_size": MAX_BATCH,
        "max_batch_time": 0.001,
        "parameters": parameters,
    }
    (home / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    (home / "model-settings.json").write_text(json.dumps(described), encoding="utf-8")


def _when_ready(port: int, model: str) -> Callable[[], int | None]:
    """Return a `find_port` that answers once the model is ready."""

    def find() -> int | None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                stub = GRPCInferenceServiceStub(channel)
                answer = stub.ModelReady(wire.ModelReadyRequest(name=model), timeout=1.0)
            except grpc.RpcError:
                return None
        return port if answer.ready else None

    return find


if __name__ == "__main__":
    command.main(run, __doc__)
