"""Between the governor's values and the messages of `boulton.v1`."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from optimizer.governor import Record
from optimizer.operating_point import OperatingPoint
from optimizer.revenue import Revenue, Targets
from optimizer.telemetry import Window
from protos import boulton_pb2 as pb
from server.errors import InvalidArgument
from server.governing.decision_text import decision_line

_TARGETS = tuple(field.name for field in fields(Targets))


def point_message(point: OperatingPoint) -> pb.OperatingPoint:
    """Write a setting; what is None stays absent."""
    return pb.OperatingPoint(
        batch_limit=point.batch_limit,
        sm_clock_mhz=point.sm_clock_mhz,
        memory_clock_mhz=point.memory_clock_mhz,
        power_limit_w=point.power_limit_w,
    )


def targets_message(targets: Targets) -> pb.Targets:
    """Write all targets; a power cap of None stays absent."""
    return pb.Targets(**{name: getattr(targets, name) for name in _TARGETS})


def changed_targets(targets: Targets, wanted: pb.Targets) -> Targets:
    """Apply what a message gives to the targets in force. A power cap of 0 lifts the cap.

    Raises:
        InvalidArgument: a value that is not allowed, or no value at all.
    """
    given: dict[str, Any] = {name: getattr(wanted, name) for name in _TARGETS if _has(wanted, name)}
    if not given:
        raise InvalidArgument(f"no target given; give at least one of {', '.join(_TARGETS)}")
    if given.get("power_cap_w") == 0:
        given["power_cap_w"] = None
    try:
        return replace(targets, **given)
    except ValueError as error:
        raise InvalidArgument(str(error)) from error


def decision_message(model: str, record: Record) -> pb.Decision:
    """Write one turn of the governor."""
    decision = record.decision
    return pb.Decision(
        model=model,
        window=_window_message(record.window),
        revenue=_revenue_message(record.revenue),
        point=point_message(decision.point),
        reason=decision.reason,
        predicted_revenue_per_s=decision.predicted_revenue_per_s,
        predicted_p99_ms=decision.predicted_p99_ms,
        predicted_power_w=decision.predicted_power_w,
        runner_up=point_message(decision.runner_up) if decision.runner_up else None,
        runner_up_revenue_per_s=decision.runner_up_revenue_per_s,
        error=record.error or "",
        line=decision_line(record),
    )


def _window_message(window: Window) -> pb.Window:
    traffic, device = window.traffic, window.device
    return pb.Window(
        duration_s=window.duration_s,
        point=point_message(window.point),
        arrived=traffic.arrived,
        completed=traffic.completed,
        late=traffic.late,
        refused=traffic.refused,
        expired=traffic.expired,
        cancelled=traffic.cancelled,
        failed=traffic.failed,
        queued=traffic.queued,
        latency_p50_ms=traffic.latency_p50_ms,
        latency_p95_ms=traffic.latency_p95_ms,
        latency_p99_ms=traffic.latency_p99_ms,
        energy_j=device.energy.joules,
        energy_source=str(device.energy.source),
        power_w=device.power_w,
        sm_clock_actual_mhz=device.sm_clock_mhz,
        event_reasons=int(device.event_reasons),
        temperature_c=device.temperature_c,
    )


def _revenue_message(revenue: Revenue) -> pb.Revenue:
    return pb.Revenue(
        income=revenue.income, penalty=revenue.penalty, energy_cost=revenue.energy_cost, total=revenue.total
    )


def _has(message: pb.Targets, name: Any) -> bool:  # noqa: ANN401  # the stubs list the names as literals
    return message.HasField(name)
