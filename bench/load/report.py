"""From results to what is said: numbers for machines, lines for people, and whether to believe them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.load.measuring import Failures, WorkerResult
from bench.load.plan import Closed, LoadPlan, Poisson, Trace
from server.logs import escape

CPU_BOUND = 0.9
LAG_BOUND_MS = 10.0
QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True, slots=True)
class Report:
    """One run, all processes together. `latency_ms` and `send_lag_ms` are empty when nothing was sent."""

    plan: LoadPlan
    requests: int
    images: int
    images_late: int
    failures: dict[str, Failures]
    span_s: float
    latency_ms: dict[str, float]
    send_lag_ms: dict[str, float]
    cpu_shares: tuple[float, ...]
    max_in_flight: int
    interrupted: bool

    @property
    def requests_per_s(self) -> float:
        """Requests answered a second."""
        return self.requests / self.span_s

    @property
    def images_per_s(self) -> float:
        """Images answered a second."""
        return self.images / self.span_s

    @property
    def images_failed(self) -> int:
        """Images that got no answer."""
        return sum(failure.images for failure in self.failures.values())

    @property
    def late_share(self) -> float | None:
        """Share of images answered after the SLO or not at all; None without an SLO or without images."""
        offered = self.images + self.images_failed
        if self.plan.slo_ms is None or not offered:
            return None
        return (self.images_late + self.images_failed) / offered

    @property
    def limits(self) -> tuple[str, ...]:
        """Why the generator rather than the server may have set these numbers; empty when it did not."""
        said = []
        busiest = max(self.cpu_shares)
        if busiest > CPU_BOUND:
            said.append(f"a generator process used {busiest:.0%} of a core; add --processes or send less")
        lag_ms = self.send_lag_ms.get("p99", 0.0)
        if lag_ms > LAG_BOUND_MS:
            late = f"1 request in 100 was sent {lag_ms:.1f} ms late or more"
            said.append(f"{late}, and latency includes that; this machine is busy")
        return tuple(said)


def make_report(plan: LoadPlan, results: Sequence[WorkerResult]) -> Report:
    """Join the results of all processes."""
    latency_s = np.concatenate([result.latency_s for result in results])
    return Report(
        plan=plan,
        requests=latency_s.size,
        images=sum(result.images for result in results),
        images_late=sum(result.images_late for result in results),
        failures=_join([result.failures for result in results]),
        span_s=max(result.span_s for result in results),
        latency_ms=quantiles_ms(latency_s),
        send_lag_ms=quantiles_ms(np.concatenate([result.lag_s for result in results])),
        cpu_shares=tuple(result.cpu_share for result in results),
        max_in_flight=sum(result.max_in_flight for result in results),
        interrupted=any(result.interrupted for result in results),
    )


def _join(failures: Sequence[dict[str, Failures]]) -> dict[str, Failures]:
    by_code: dict[str, list[Failures]] = defaultdict(list)
    for each in failures:
        for code, failure in each.items():
            by_code[code].append(failure)
    return {
        code: Failures(sum(f.requests for f in found), sum(f.images for f in found), found[0].message)
        for code, found in sorted(by_code.items())
    }


def quantiles_ms(seconds: NDArray[np.float64]) -> dict[str, float]:
    """Quantiles in milliseconds: the value that so many had at most."""
    if not seconds.size:
        return {}
    values = np.quantile(seconds, list(QUANTILES.values()), method="inverted_cdf") * 1e3
    return dict(zip(QUANTILES, values.tolist(), strict=True))


def as_json(report: Report) -> dict[str, Any]:
    """Everything about the run, as JSON can hold it. What there is not is null or missing, never 0."""
    plan = report.plan
    return {
        "url": plan.endpoint.target,
        "model": plan.model,
        "arrivals": _arrivals(plan),
        "batch": plan.batch,
        "input": plan.pictures.kind,
        "shared_memory": plan.shared_memory,
        "processes": plan.processes,
        "seed": plan.seed,
        "warmup_s": plan.warmup_s,
        "duration_s": plan.duration_s,
        "timeout_ms": None if plan.timeout_s is None else plan.timeout_s * 1e3,
        "slo_ms": plan.slo_ms,
        "interrupted": report.interrupted,
        "span_s": report.span_s,
        "requests_answered": report.requests,
        "images_answered": report.images,
        "images_late": None if plan.slo_ms is None else report.images_late,
        "images_failed": report.images_failed,
        "late_share": report.late_share,
        "requests_per_s": report.requests_per_s,
        "images_per_s": report.images_per_s,
        "latency_ms": report.latency_ms,
        "errors": {
            code: {"requests": failure.requests, "images": failure.images, "message": failure.message}
            for code, failure in report.failures.items()
        },
        "generator": {
            "is_limit": bool(report.limits),
            "reasons": list(report.limits),
            "cpu_share": list(report.cpu_shares),
            "send_lag_ms": report.send_lag_ms,
            "max_in_flight": report.max_in_flight,
        },
    }


def _arrivals(plan: LoadPlan) -> dict[str, Any]:
    match plan.arrivals:
        case Closed(concurrency):
            return {"kind": "closed", "concurrency": concurrency}
        case Poisson(rate):
            return {"kind": "poisson", "requests_per_s": rate}
        case Trace(path, arrivals):
            return {"kind": "trace", "file": str(path), "arrivals": len(arrivals)}


def as_text(report: Report) -> str:
    """The run in a few lines."""
    lines = [
        escape(f"{report.plan.model} on {report.plan.endpoint.target}: {_headline(report.plan)}"),
        f"  answered   {_answered(report)}",
        f"  latency    {_latency(report)}",
        *_late(report),
        *(
            f"  failed     {code} {failure.requests}: {escape(failure.message)}"
            for code, failure in report.failures.items()
        ),
        f"  generator  {_generator(report)}",
        *(f"  THE GENERATOR IS THE LIMIT: {reason}" for reason in report.limits),
        *(["  INTERRUPTED: shorter than planned"] if report.interrupted else []),
    ]
    return "\n".join(lines)


def _headline(plan: LoadPlan) -> str:
    batch = f"{plan.batch} images each" if plan.batch and plan.batch > 1 else "1 image each"
    match plan.arrivals:
        case Closed(concurrency):
            return f"closed loop, {concurrency} at a time, {batch}"
        case Poisson(rate):
            return f"open loop, {rate:g} requests/s (Poisson), {batch}"
        case Trace(path, _):
            return f"open loop, {path}"


def _answered(report: Report) -> str:
    counts = f"{report.requests} requests with {report.images} images in {report.span_s:.1f} s"
    return f"{counts}: {report.requests_per_s:.1f} requests/s, {report.images_per_s:.1f} images/s"


def _latency(report: Report) -> str:
    if not report.latency_ms:
        return "no request was answered"
    values = "  ".join(f"{name} {value:.2f}" for name, value in report.latency_ms.items())
    since = "since due" if report.plan.open_loop else "since sent"
    return f"{values}  ms {since}"


def _late(report: Report) -> list[str]:
    if report.late_share is None:
        return []
    parts = f"{report.images_late} over {report.plan.slo_ms:g} ms, {report.images_failed} not answered"
    return [f"  late       {report.late_share:.2%} of images: {parts}"]


def _generator(report: Report) -> str:
    shares = ", ".join(f"{share:.0%}" for share in report.cpu_shares)
    lag = f", sent {report.send_lag_ms['p99']:.2f} ms after due (p99)" if report.send_lag_ms else ""
    return f"{shares} of a core{lag}"
