"""The service `boulton.v1.OperatorService`: what the governor does, and what the operator wants of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from protos import boulton_pb2 as pb
from server.errors import InvalidArgument, ResourceExhausted, Unimplemented
from server.governing.loop import Governing
from server.governing.operator_messages import (
    changed_targets,
    decision_message,
    insight_message,
    parse_point,
    point_message,
    saving_message,
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
            "GetTargets": unary_message(pb.GetTargetsRequest, self._get_targets),
            "SetTargets": unary_message(pb.SetTargetsRequest, self._set_targets),
            "WatchDecisions": server_stream(pb.WatchDecisionsRequest, self._watch_decisions),
            "ListDecisions": unary_message(pb.ListDecisionsRequest, self._list_decisions),
            "Pause": unary_message(pb.PauseRequest, self._pause),
            "Resume": unary_message(pb.ResumeRequest, self._resume),
            "Pin": unary_message(pb.PinRequest, self._pin),
            "Unpin": unary_message(pb.UnpinRequest, self._unpin),
            "ListLearned": unary_message(pb.ListLearnedRequest, self._list_learned),
            "Forget": unary_message(pb.ForgetRequest, self._forget),
        }

    async def _get_status(self, _request: pb.GetStatusRequest) -> pb.Status:
        governing = self._governing()
        return pb.Status(governed=False) if governing is None else _status(governing)

    async def _get_targets(self, _request: pb.GetTargetsRequest) -> pb.Targets:
        return targets_message(self._governed().governor.targets)

    async def _set_targets(self, request: pb.SetTargetsRequest) -> pb.Targets:
        governing = self._governed()
        targets = changed_targets(governing.governor.targets, request.targets)
        not_kept = await governing.set_targets(targets)
        answer = targets_message(targets)
        answer.not_kept = not_kept or ""
        return answer

    async def _watch_decisions(self, _request: pb.WatchDecisionsRequest) -> AsyncIterator[pb.Decision]:
        governing = self._governed()
        if governing.watchers >= MAX_WATCHERS:
            raise ResourceExhausted(f"{governing.watchers} clients watch decisions, and no more may")
        async for turn in governing.watch():
            yield decision_message(governing.model, turn)

    async def _list_decisions(self, request: pb.ListDecisionsRequest) -> pb.DecisionList:
        governing = self._governed()
        turns = governing.latest(request.count)
        return pb.DecisionList(decisions=[decision_message(governing.model, turn) for turn in turns])

    async def _pause(self, _request: pb.PauseRequest) -> pb.Status:
        return self._set_paused(paused=True)

    async def _resume(self, _request: pb.ResumeRequest) -> pb.Status:
        return self._set_paused(paused=False)

    def _set_paused(self, *, paused: bool) -> pb.Status:
        governing = self._governed()
        governing.governor.paused = paused
        return _status(governing)

    async def _pin(self, request: pb.PinRequest) -> pb.Status:
        governing = self._governed()
        if not request.HasField("point"):
            raise InvalidArgument(
                "no setting given; give point.batch_limit and, where it is governed, a clock"
            )
        point = parse_point(request.point)
        try:
            governing.governor.pin(point)
        except ValueError as error:
            raise InvalidArgument(f"{error}: {_legal(governing)}") from error
        return _status(governing)

    async def _unpin(self, _request: pb.UnpinRequest) -> pb.Status:
        governing = self._governed()
        governing.governor.pin(None)
        return _status(governing)

    async def _list_learned(self, _request: pb.ListLearnedRequest) -> pb.Learned:
        governing = self._governed()
        insight = await governing.insight()
        return pb.Learned(
            policy=governing.governor.policy.name,
            learns=governing.learner is not None,
            state_json=json.dumps(await governing.learned()),
            file=governing.learned_file,
            insight=None if insight is None else insight_message(insight),
        )

    async def _forget(self, _request: pb.ForgetRequest) -> pb.ForgetResponse:
        governing = self._governed()
        if governing.learner is None:
            raise Unimplemented(f"the policy {governing.governor.policy.name} learns nothing to forget")
        await governing.forget()
        return pb.ForgetResponse()

    def _governed(self) -> Governing:
        governing = self._governing()
        if governing is None:
            raise Unimplemented("no model is governed; start the server with --govern MODEL")
        return governing


def _status(governing: Governing) -> pb.Status:
    governor, last, pinned = governing.governor, governing.last, governing.governor.pinned
    return pb.Status(
        governed=True,
        model=governing.model,
        policy=governor.policy.name,
        gpu_uuid=governing.device.uuid,
        simulated=governing.device.simulated,
        target=point_message(governor.point),
        sm_clock_actual_mhz=last.window.device.sm_clock_mhz if last else None,
        targets=targets_message(governor.targets),
        last=decision_message(governing.model, governing.history[-1]) if last else None,
        paused=governor.paused,
        pinned=point_message(pinned) if pinned else None,
        batch_limits=governor.grid.batch_limits,
        sm_clocks_mhz=governor.grid.sm_clocks_mhz,
        alarms=governing.alarms,
        saving=saving_message(governor.holdback.saving) if governor.holdback else None,
    )


def _legal(governing: Governing) -> str:
    limits, clocks = governing.governor.grid.batch_limits, governing.governor.grid.sm_clocks_mhz
    text = f"batch limits go from {limits[0]} to {limits[-1]}"
    if not clocks:
        return f"{text}; the clock is not governed"
    return f"{text}, clocks are {', '.join(map(str, clocks))} MHz"
