"""A client of the operator service, and the flags that every command of the operator takes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from optimizer.energy_price import PriceSchedule, PriceStep
from optimizer.operating_point import OperatingPoint
from optimizer.revenue import FORM_UNITS
from protos import boulton_pb2 as pb
from protos import boulton_pb2_grpc as pb_grpc
from server.client.endpoint import (
    OPERATOR_URL,
    UNLIMITED,
    Endpoint,
    ServerRefused,
    ServerUnreachable,
    add_endpoint_arguments,
    endpoint_from,
    explain,
)
from server.logs import escape

TIMEOUT_S = 10.0
EXIT_SERVER = 1
T = TypeVar("T")


def add_operator_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that name the operator's port of a server."""
    add_endpoint_arguments(parser, OPERATOR_URL)


class OperatorClient:
    """Calls of the operator. Every method raises `ServerUnreachable` or `ServerRefused`.

    Args:
        endpoint: the operator's port.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        credentials = endpoint.credentials
        if credentials is None:
            self._channel = grpc.insecure_channel(endpoint.target, options=UNLIMITED)
        else:
            self._channel = grpc.secure_channel(endpoint.target, credentials, options=UNLIMITED)
        self._stub = pb_grpc.OperatorServiceStub(self._channel)

    def __enter__(self) -> OperatorClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def status(self) -> pb.Status:
        """What is governed, where it stands, and under what orders."""
        return self._ask(pb.Status, self._stub.GetStatus, pb.GetStatusRequest())

    def targets(self) -> pb.Targets:
        """What the operator wants."""
        return self._ask(pb.Targets, self._stub.GetTargets, pb.GetTargetsRequest())

    def set_targets(self, targets: pb.Targets) -> pb.Targets:
        """Change what is given; return all that is in force."""
        request = pb.SetTargetsRequest(targets=targets)
        return self._ask(pb.Targets, self._stub.SetTargets, request)

    def decisions(self, count: int) -> Sequence[pb.Decision]:
        """The latest decisions, oldest first; 0: all that are remembered."""
        request = pb.ListDecisionsRequest(count=count)
        return self._ask(pb.DecisionList, self._stub.ListDecisions, request).decisions

    def watch(self) -> Iterator[pb.Decision]:
        """Every decision from now on, until the server ends."""
        with self._explained():
            yield from self._stub.WatchDecisions(pb.WatchDecisionsRequest(), metadata=self._endpoint.metadata)

    def pause(self) -> pb.Status:
        """Decide nothing more."""
        return self._ask(pb.Status, self._stub.Pause, pb.PauseRequest())

    def resume(self) -> pb.Status:
        """Decide again."""
        return self._ask(pb.Status, self._stub.Resume, pb.ResumeRequest())

    def pin(self, point: OperatingPoint) -> pb.Status:
        """Hold a setting."""
        message = pb.OperatingPoint(
            batch_limit=point.batch_limit, sm_clock_mhz=point.sm_clock_mhz, max_delay_ms=point.max_delay_ms
        )
        return self._ask(pb.Status, self._stub.Pin, pb.PinRequest(point=message))

    def unpin(self) -> pb.Status:
        """Let the policy choose again."""
        return self._ask(pb.Status, self._stub.Unpin, pb.UnpinRequest())

    def learned(self) -> pb.Learned:
        """What the policy has learned."""
        return self._ask(pb.Learned, self._stub.ListLearned, pb.ListLearnedRequest())

    def forget(self) -> None:
        """Have the policy start anew."""
        self._ask(pb.ForgetResponse, self._stub.Forget, pb.ForgetRequest())

    def _ask(self, _answer: type[T], method: Callable[..., T], request: Message) -> T:
        """Call; the kind of answer is named for the type checker, which gRPC's stubs tell nothing."""
        with self._explained():
            return method(request, metadata=self._endpoint.metadata, timeout=TIMEOUT_S)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise explain(error, self._endpoint) from error


def ask_operator(arguments: argparse.Namespace, work: Callable[[OperatorClient], None]) -> int:
    """Do a command's work with the server that the flags name; return its exit code.

    Returns:
        1, with a line on stderr, when the server cannot be reached or refuses; else 0.

    Raises:
        ConfigError: the flags cannot be used.
    """
    endpoint = endpoint_from(arguments)
    try:
        with OperatorClient(endpoint) as operator:
            work(operator)
    except (ServerUnreachable, ServerRefused) as error:
        print(f"boulton: {escape(str(error))}", file=sys.stderr)
        return EXIT_SERVER
    return 0


def point_of(message: pb.OperatingPoint) -> OperatingPoint:
    """Read a setting."""
    return OperatingPoint(
        batch_limit=message.batch_limit,
        sm_clock_mhz=message.sm_clock_mhz if message.HasField("sm_clock_mhz") else None,
        memory_clock_mhz=message.memory_clock_mhz if message.HasField("memory_clock_mhz") else None,
        power_limit_w=message.power_limit_w if message.HasField("power_limit_w") else None,
        max_delay_ms=message.max_delay_ms,
    )


def schedule_of(message: pb.Targets) -> PriceSchedule | None:
    """Read prices by time of day; None where one price holds all day."""
    steps = tuple(PriceStep(step.start_s, step.price_per_kwh) for step in message.energy_price_steps)
    return PriceSchedule(steps) if steps else None


def status_line(status: pb.Status) -> str:
    """Say in one line what is governed and where it stands."""
    if not status.governed:
        return "no model is governed; start the server with --govern MODEL"
    orders = ["paused"] if status.paused else []
    orders += [f"pinned at {point_of(status.pinned)}"] if status.HasField("pinned") else []
    mode = ", ".join(orders) or f"governed by {status.policy}"
    saving = f"; {saving_text(status.saving, status.targets.form)}" if status.HasField("saving") else ""
    return f"{status.model} on {status.gpu_uuid}: {mode}; now {point_of(status.target)}{saving}"


def saving_text(saving: pb.Saving, form: str) -> str:
    """Say what governing saves, with its confidence interval, or that too little was compared yet.

    In currency an hour; by the forms that score the average image in their unit, an image.
    """
    if not saving.HasField("revenue_per_s"):
        return f"what is saved is not known yet ({saving.comparisons} comparisons)"
    if form in FORM_UNITS:
        parts = [f"saves {_bounded(saving.revenue_per_s, 1.0)} {FORM_UNITS[form]} an image ({form})"]
    else:
        parts = [f"saves {_bounded(saving.revenue_per_s, 3600.0)} an hour"]
    if saving.HasField("power_w"):
        parts.append(f"{_bounded(saving.power_w, 1.0)} W ({saving.energy_source})")
    return f"{' and '.join(parts)}, by {saving.comparisons} comparisons with the default"


def _bounded(interval: pb.Interval, factor: float) -> str:
    mean, low, high = (factor * value for value in (interval.mean, interval.low, interval.high))
    return f"{mean:.3g} (95 %: {low:.3g} .. {high:.3g})"
