"""The plans of one model: clients send the same header again and again with other pixels."""

from __future__ import annotations

from collections import OrderedDict

from server.inference.plan import InferPlan, make_plan
from server.models.spec import ModelSpec
from server.wire.tensors import RequestHeader

MAX_KEPT_REGION_CHARS = 256


class PlanCache:
    """The plans of one model, found by the header object itself: the parser keeps one for equal headers."""

    def __init__(self, spec: ModelSpec, capacity: int = 256) -> None:
        self._spec = spec
        self._capacity = capacity
        self._plans: OrderedDict[RequestHeader, InferPlan] = OrderedDict()

    def __len__(self) -> int:
        return len(self._plans)

    def find(self, header: RequestHeader) -> InferPlan:
        """Return the plan for a header. Raises `InvalidArgument` when it contradicts the model."""
        plan = self._plans.get(header)
        if plan is not None:
            return plan
        plan = make_plan(self._spec, header)
        if _is_worth_keeping(header):
            self._keep(header, plan)
        return plan

    def _keep(self, header: RequestHeader, plan: InferPlan) -> None:
        if len(self._plans) >= self._capacity:
            self._plans.popitem(last=False)
        self._plans[header] = plan


def _is_worth_keeping(header: RequestHeader) -> bool:
    """Typed contents make a header unique; a long region name would make the cache heavy."""
    typed = any(tensor.typed is not None for tensor in header.inputs)
    regions = [tensor.region for tensor in header.inputs] + [tensor.region for tensor in header.outputs]
    short = all(region is None or len(region.region) <= MAX_KEPT_REGION_CHARS for region in regions)
    return short and not typed
