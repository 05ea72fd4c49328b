from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from bench.load.measuring import Failures, WorkerResult
from bench.load.plan import Closed, LoadPlan, Poisson
from bench.load.report import as_json, as_text, make_report, quantiles_ms
from server.client.endpoint import Endpoint

PLAN = LoadPlan(endpoint=Endpoint("127.0.0.1:8001"), model="net", arrivals=Poisson(100.0), slo_ms=50.0)


def result(**changed: object) -> WorkerResult:
    plain = WorkerResult(
        latency_s=np.array([0.010, 0.020, 0.060]),
        lag_s=np.array([0.0001, 0.0002, 0.0003]),
        images=6,
        images_late=2,
        failures={"UNAVAILABLE": Failures(2, 4, "queue is full")},
        span_s=10.0,
        cpu_share=0.3,
        max_in_flight=100,
    )
    return replace(plain, **changed)


def test_quantiles_are_values_that_were_measured() -> None:
    values = quantiles_ms(np.arange(1, 101) / 1000.0)

    assert values == pytest.approx({"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "max": 100.0})
    assert quantiles_ms(np.array([])) == {}


def test_processes_are_added_up() -> None:
    report = make_report(PLAN, [result(), result(span_s=20.0, failures={"INTERNAL": Failures(1, 1, "x")})])

    assert (report.requests, report.images, report.images_late, report.images_failed) == (6, 12, 4, 5)
    assert set(report.failures) == {"UNAVAILABLE", "INTERNAL"}
    assert report.images_per_s == pytest.approx(12 / 20.0)
    assert report.requests_per_s == pytest.approx(6 / 20.0)


def test_late_is_what_came_late_or_not_at_all() -> None:
    assert make_report(PLAN, [result()]).late_share == pytest.approx((2 + 4) / (6 + 4))


def test_without_an_slo_nothing_is_late() -> None:
    report = make_report(replace(PLAN, slo_ms=None), [result()])

    assert report.late_share is None
    assert as_json(report)["images_late"] is None
    assert "late " not in as_text(report)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, None),
        ({"cpu_share": 0.9}, None),
        ({"cpu_share": 0.95}, "95% of a core"),
        ({"lag_s": np.full(200, 0.009)}, None),
        ({"lag_s": np.full(200, 0.011)}, "11.0 ms late"),
    ],
)
def test_the_generator_says_when_it_is_the_limit(changed: dict[str, object], said: str | None) -> None:
    report = make_report(PLAN, [result(**changed)])

    document = as_json(report)["generator"]
    assert document["is_limit"] is (said is not None)
    assert ("THE GENERATOR IS THE LIMIT" in as_text(report)) is (said is not None)
    assert said is None or (said in document["reasons"][0] and said in as_text(report))


def test_one_busy_process_among_idle_ones_is_enough() -> None:
    assert make_report(PLAN, [result(), result(cpu_share=1.2)]).limits


def test_the_json_is_complete_and_strict() -> None:
    document = json.loads(json.dumps(as_json(make_report(PLAN, [result()])), allow_nan=False))

    assert document["latency_ms"] == pytest.approx({"p50": 20, "p90": 60, "p95": 60, "p99": 60, "max": 60})
    assert document["errors"] == {"UNAVAILABLE": {"requests": 2, "images": 4, "message": "queue is full"}}
    assert document["arrivals"] == {"kind": "poisson", "requests_per_s": 100.0}
    assert document["images_per_s"] == pytest.approx(0.6)


def test_nothing_answered_is_said_and_still_json() -> None:
    empty = result(latency_s=np.array([]), lag_s=np.array([]), images=0, images_late=0)
    report = make_report(replace(PLAN, arrivals=Closed(2)), [empty])

    assert "no request was answered" in as_text(report)
    assert json.loads(json.dumps(as_json(report), allow_nan=False))["latency_ms"] == {}


def test_the_text_names_the_loop_and_since_when_latency_counts() -> None:
    opened = as_text(make_report(PLAN, [result()]))
    closed = as_text(make_report(replace(PLAN, arrivals=Closed(2), batch=4), [result()]))

    assert "open loop, 100 requests/s (Poisson)" in opened
    assert "since due" in opened
    assert "closed loop, 2 at a time, 4 images each" in closed
    assert "since sent" in closed


def test_messages_of_the_server_cannot_forge_lines() -> None:
    forged = result(failures={"INTERNAL": Failures(1, 1, "x\n  answered   999 requests")})

    assert len(as_text(make_report(PLAN, [forged])).splitlines()) == 6


def test_an_interrupted_run_says_so() -> None:
    report = make_report(PLAN, [result(interrupted=True)])

    assert "INTERRUPTED" in as_text(report)
    assert as_json(report)["interrupted"] is True
