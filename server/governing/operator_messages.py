"""Between the governor's values and the messages of `boulton.v1`."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from optimizer.energy_price import PriceSchedule, PriceStep
from optimizer.holdback import Interval, Saving
from optimizer.insight import Insight, TriedSetting
from optimizer.operating_point import OperatingPoint
from optimizer.policies.policy import Alarm, Prediction
from optimizer.revenue import Revenue
from optimizer.targets import Targets
from optimizer.telemetry import Window
from protos import boulton_pb2 as pb
from server.errors import InvalidArgument
from server.governing.decision_text import decision_line
from server.governing.loop import Turn

_TARGETS = tuple(field.name for field in fields(Targets))
_PRICE = "energy_price_per_kwh"


def point_message(point: OperatingPoint) -> pb.OperatingPoint:
    """Write a setting; what is None stays absent."""
    return pb.OperatingPoint(
        batch_limit=point.batch_limit,
        sm_clock_mhz=point.sm_clock_mhz,
        memory_clock_mhz=point.memory_clock_mhz,
        power_limit_w=point.power_limit_w,
        max_delay_ms=point.max_delay_ms,
    )


def parse_point(message: pb.OperatingPoint) -> OperatingPoint:
    """Read a setting to be held.

    Raises:
        InvalidArgument: a delay that is not allowed, an axis that cannot be pinned, or an unknown field.
    """
    _refuse_unknown(message)
    if message.HasField("memory_clock_mhz") or message.HasField("power_limit_w"):
        raise InvalidArgument(
            "memory clock and power limit cannot be pinned; give batch_limit and sm_clock_mhz"
        )
    if not 0.0 <= message.max_delay_ms <= _LONGEST_DELAY_MS:
        raise InvalidArgument(
            f"max_delay_ms = {message.max_delay_ms:g} is not allowed; expected 0 to {_LONGEST_DELAY_MS:g}"
        )
    clock_mhz = message.sm_clock_mhz if message.HasField("sm_clock_mhz") else None
    return OperatingPoint(message.batch_limit, clock_mhz, max_delay_ms=message.max_delay_ms)


_LONGEST_DELAY_MS = 60_000.0


def targets_message(targets: Targets) -> pb.Targets:
    """Write all targets; a power cap of None stays absent, prices by time of day go as steps."""
    values: dict[str, Any] = {name: getattr(targets, name) for name in _TARGETS}
    price = values[_PRICE]
    if isinstance(price, PriceSchedule):
        values[_PRICE] = None
        values["energy_price_steps"] = [
            pb.PriceStep(start_s=step.start_s, price_per_kwh=step.price_per_kwh) for step in price.steps
        ]
    return pb.Targets(**values)


def changed_targets(targets: Targets, wanted: pb.Targets) -> Targets:
    """Apply what a message gives to the targets in force. A power cap of 0 lifts the cap.

    Raises:
        InvalidArgument: a value that is not allowed, a field that is not known here, or no value at all.
    """
    _refuse_unknown(wanted)
    given: dict[str, Any] = {name: getattr(wanted, name) for name in _TARGETS if _has(wanted, name)}
    if not given and not wanted.energy_price_steps:
        raise InvalidArgument(f"no target given; give at least one of {', '.join(_TARGETS)}")
    if given.get("power_cap_w") == 0:
        given["power_cap_w"] = None
    if wanted.energy_price_steps and _PRICE in given:
        raise InvalidArgument(f"{_PRICE} and energy_price_steps exclude each other; give one of them")
    try:
        if wanted.energy_price_steps:
            given[_PRICE] = parse_schedule(wanted)
        return replace(targets, **given)
    except ValueError as error:
        raise InvalidArgument(str(error)) from error


def parse_schedule(message: pb.Targets) -> PriceSchedule:
    """Read prices by time of day. Raises ValueError when they are not allowed."""
    for step in message.energy_price_steps:
        _refuse_unknown(step)
    return PriceSchedule(
        tuple(PriceStep(step.start_s, step.price_per_kwh) for step in message.energy_price_steps)
    )


def decision_message(model: str, turn: Turn) -> pb.Decision:
    """Write one turn of the governor."""
    record = turn.record
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
        line=decision_line(record, turn.pinned),
        alarm=_alarm_message(decision.alarm) if decision.alarm else None,
        alternatives=[_prediction_message(each) for each in decision.alternatives],
        infeasible=decision.infeasible,
        learned=decision.learned,
        pinned=point_message(turn.pinned) if turn.pinned else None,
        paused=turn.paused,
        decided_unix_s=turn.decided_unix_s,
        held_back=record.held_back,
    )


def _prediction_message(prediction: Prediction) -> pb.Prediction:
    return pb.Prediction(
        point=point_message(prediction.point),
        revenue_per_s=prediction.revenue_per_s,
        p99_ms=prediction.p99_ms,
        power_w=prediction.power_w,
    )


def insight_message(insight: Insight) -> pb.Insight:
    """Write what a policy has learned, for a person."""
    return pb.Insight(
        tried=[_tried_message(setting) for setting in insight.tried],
        idle_power_w=insight.idle_power_w,
        doubt=insight.doubt,
        overhead_ms=insight.overhead_ms,
        rate_per_s=insight.rate_per_s,
        burstiness=insight.burstiness,
        unevenness=insight.unevenness,
        evenness=insight.evenness,
    )


def _tried_message(setting: TriedSetting) -> pb.TriedSetting:
    return pb.TriedSetting(
        batch=setting.batch,
        sm_clock_mhz=setting.sm_clock_mhz,
        batch_ms=setting.batch_ms,
        power_w=setting.power_w,
        known=setting.known,
    )


def saving_message(saving: Saving) -> pb.Saving:
    """Return what was saved as the wire has it."""
    return pb.Saving(
        comparisons=saving.comparisons,
        revenue_per_s=_interval_message(saving.revenue_per_s),
        power_w=_interval_message(saving.power_w),
        energy_source=saving.source,
    )


def _interval_message(interval: Interval | None) -> pb.Interval | None:
    return None if interval is None else pb.Interval(mean=interval.mean, low=interval.low, high=interval.high)


def _alarm_message(alarm: Alarm) -> pb.Alarm:
    wire = alarm.wire
    message = pb.Alarm(queued_images=wire.queued_images, refuge=point_message(alarm.refuge))
    if math.isfinite(wire.burst_images):
        message.rate_per_s, message.burst_images = wire.rate_per_s, wire.burst_images
    return message


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
        income=revenue.income,
        penalty=revenue.penalty,
        energy_cost=revenue.energy_cost,
        total=revenue.total,
        form=revenue.form,
    )


def _has(message: pb.Targets, name: Any) -> bool:  # noqa: ANN401  # the stubs list the names as literals
    return message.HasField(name)


def _refuse_unknown(message: Message) -> None:
    """A client that asks for something not known here must not believe that it is done."""
    unknown = UnknownFieldSet(message)
    if len(unknown):
        number, name = unknown[0].field_number, message.DESCRIPTOR.name
        raise InvalidArgument(f"{name} has no field number {number}; the client is newer than this server")
