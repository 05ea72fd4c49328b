"""The service `boulton.v1.OperatorService`: what the governor does, and what the operator wants of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from protos import boulton_pb2 as pb
from server.errors import ResourceExhausted, Unimplemented
from server.governing.loop import Governing
from server.governing.operator_messages import (
    changed_targets,
    decision_message,
    point_message,
    targets_message,
)
from server.transport.rpc import MethodHandler, generic_handler, server_stream, unary_message

SERVICE_NAME = "boulton.v1.OperatorService"
MAX_WATCHERS = 64


class OperatorService:
    """Answers the operator.

    Args:
        governing: finds the governor at work; None when nothing is governed.
    """

    def __init__(self, governing: Callable[[], Governing | None]) -> None:
        self._governing = governing

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        """The service's methods, for `Server.add_generic_rpc_handlers`."""
        return generic_handler(SERVICE_NAME, self.methods())

    def methods(self) -> dict[str, MethodHandler]:
        """Every method by its name."""
        return {
            "GetStatus": unary_message(pb.GetStatusRequest, self._get_status),
            "SetTargets": unary_message(pb.SetTargetsRequest, self._set_targets),
            "WatchDecisions": server_stream(pb.WatchDecisionsRequest, self._watch_decisions),
        }

    async def _get_status(self, _request: pb.GetStatusRequest) -> pb.Status:
        governing = self._governing()
        if governing is None:
            return pb.Status(governed=False)
        governor, last = governing.governor, governing.last
        return pb.Status(
            governed=True,
            model=governing.model,
            policy=governor.policy.name,
            gpu_uuid=governing.device.uuid,
            simulated=governing.device.simulated,
            target=point_message(governor.point),
            sm_clock_actual_mhz=last.window.device.sm_clock_mhz if last else None,
            targets=targets_message(governor.targets),
            last=decision_message(governing.model, last) if last else None,
        )

    async def _set_targets(self, request: pb.SetTargetsRequest) -> pb.Targets:
        governor = self._governed().governor
        governor.targets = changed_targets(governor.targets, request.targets)
        return targets_message(governor.targets)

    async def _watch_decisions(self, _request: pb.WatchDecisionsRequest) -> AsyncIterator[pb.Decision]:
        governing = self._governed()
        if governing.watchers >= MAX_WATCHERS:
            raise ResourceExhausted(f"{governing.watchers} clients watch decisions, and no more may")
        async for record in governing.watch():
            yield decision_message(governing.model, record)

    def _governed(self) -> Governing:
        governing = self._governing()
        if governing is None:
            raise Unimplemented("no model is governed; start the server with --govern MODEL")
        return governing
