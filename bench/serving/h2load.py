"""h2load as the client: HTTP/2 in C, which leaves the processor to the servers. Of Debian's nghttp2-client.

It sends one message over and over, and looks at no status of gRPC's: the server's own count says whether
what came back were answers.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import grpc

from bench.serving.processes import Server, ServerFailed
from protos import grpc_service_pb2 as wire
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub

CONNECTIONS, CALLS_EACH = 8, 4
WARM_UP_S = 1
WINDOW_BITS = "24"
METHOD = "/inference.GRPCInferenceService/ModelInfer"
HEADERS = ("content-type: application/grpc", "te: trailers")


@dataclass(frozen=True, slots=True)
class Report:
    """What h2load counted: calls that ended, those that failed below gRPC, and how many ended a second."""

    done: int
    failed: int
    requests_per_s: float


def available() -> bool:
    """Whether it is installed."""
    return shutil.which("h2load") is not None


def requests_per_s(server: Server, model: str, message: bytes, seconds: float) -> float:
    """Keep `CONNECTIONS` times `CALLS_EACH` calls in flight for whole seconds, after a warm-up.

    Raises:
        ServerFailed: some calls were not answered, or the server counts fewer answers.
    """
    before = _answers(server, model)
    report, said = _measured(server, message, seconds)
    answered, refused = (now - then for now, then in zip(_answers(server, model), before, strict=True))
    cut_off = CONNECTIONS * CALLS_EACH  # calls in flight at the end, which some servers count as failed
    if answered < report.done or refused > cut_off:
        raise ServerFailed(
            f"{server.name} answered {answered} of {report.done} calls and failed {refused}; "
            f"h2load said:\n{said}"
        )
    return report.requests_per_s


def echoes_per_s(server: Server, message: bytes, seconds: float) -> float:
    """Do the same with a server that counts nothing. Raises `ServerFailed`."""
    return _measured(server, message, seconds)[0].requests_per_s


def read_report(said: str) -> Report:
    """Read what h2load prints at its end. Raises `ServerFailed` when that looks different."""
    rate = re.search(r"finished in [^,]+, ([\d.]+) req/s", said)
    counts = re.search(r"requests: \d+ total, \d+ started, (\d+) done, \d+ succeeded, (\d+) failed", said)
    if rate is None or counts is None:
        raise ServerFailed(f"h2load said something unknown:\n{said}")
    return Report(int(counts[1]), int(counts[2]), float(rate[1]))


def _measured(server: Server, message: bytes, seconds: float) -> tuple[Report, str]:
    """Return what h2load counted, and its own words."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"\0" + struct.pack(">I", len(message)) + message)
        file.flush()
        said = _run(server, Path(file.name), seconds)
    report = read_report(said)
    if report.failed:
        raise ServerFailed(f"{server.name} failed {report.failed} calls; h2load said:\n{said}")
    return report, said


def _run(server: Server, message: Path, seconds: float) -> str:
    command = ["h2load", "-c", str(CONNECTIONS), "-m", str(CALLS_EACH), "-D", str(max(1, round(seconds)))]
    command += [f"--warm-up-time={WARM_UP_S}", "-w", WINDOW_BITS, "-W", WINDOW_BITS, "-d", str(message)]
    command += [word for header in HEADERS for word in ("-H", header)]
    done = subprocess.run([*command, f"http://{server.url}{METHOD}"], capture_output=True, text=True)
    if done.returncode:
        raise ServerFailed(f"h2load ended with {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout


def _answers(server: Server, model: str) -> tuple[int, int]:
    """How many calls the server has answered so far, and how many it has failed."""
    with grpc.insecure_channel(server.url) as channel:
        request = wire.ModelStatisticsRequest(name=model)
        answer = GRPCInferenceServiceStub(channel).ModelStatistics(request, timeout=30)
    found = [one.inference_stats for one in answer.model_stats]
    return sum(one.success.count for one in found), sum(one.fail.count for one in found)
