"""One inference from the bytes that came to the bytes that go."""

from __future__ import annotations

import time
from collections.abc import Callable

from server.inference.inputs import InputReader, Regions
from server.inference.outputs import open_regions, place, raw_outputs
from server.inference.plan import InferPlan
from server.lifecycle import Lifecycle
from server.models.table import ModelService, ModelTable
from server.wire.request_parser import RequestParser
from server.wire.response_encoder import encode_response
from server.wire.tensors import RequestMessage


class InferPipeline:
    """Parses, plans, computes, encodes. Belongs to the event loop.

    Args:
        models: the loaded models.
        lifecycle: whether requests are accepted now.
        reader: turns contents into arrays.
        regions: shared memory that outputs may go to.
        clock: the schedulers' clock.
    """

    def __init__(
        self,
        models: ModelTable,
        lifecycle: Lifecycle,
        reader: InputReader,
        regions: Regions,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._models = models
        self._lifecycle = lifecycle
        self._reader = reader
        self._regions = regions
        self._clock = clock
        self._parser = RequestParser()

    def parse(self, message: bytes) -> RequestMessage:
        """Take a request apart. Raises `InvalidArgument`."""
        return self._parser.parse(message)

    async def infer(
        self, request: RequestMessage, time_left_s: float | None, *, in_stream: bool = False
    ) -> bytes:
        """Answer a request.

        Args:
            request: from `parse`.
            time_left_s: until the client gives up; None when it waits for ever.
            in_stream: whether the answer goes into a stream, where the last answer may have to say so.

        Raises:
            RequestError: any of them; each says why.
        """
        self._lifecycle.check_accepting()
        header = request.header
        model = self._models.get(header.model_name, header.model_version)
        plan = model.plans.find(header)
        deadline_s = self._deadline_s(time_left_s, plan.timeout_s)
        with model:
            return await self._compute(model, plan, request, deadline_s, in_stream)

    async def _compute(
        self,
        model: ModelService,
        plan: InferPlan,
        request: RequestMessage,
        deadline_s: float | None,
        in_stream: bool,
    ) -> bytes:
        regions = open_regions(plan, self._regions) if plan.placed else ()
        if plan.encoded:
            arrays = await self._reader.read_encoded(plan, request, model.spec.image)
        else:
            arrays = self._reader.read(plan, request)
        answer = await model.scheduler.infer(
            arrays, plan.images, nbytes=plan.nbytes, deadline_s=deadline_s, priority=plan.priority
        )
        raw = raw_outputs(plan, answer.outputs, model.spec.labels)
        if plan.placed:
            raw = place(plan, raw, regions)
        return encode_response(plan.stream_head if in_stream else plan.head, request.id, raw)

    def _deadline_s(self, time_left_s: float | None, timeout_s: float | None) -> float | None:
        limits = [limit for limit in (time_left_s, timeout_s) if limit is not None]
        return self._clock() + min(limits) if limits else None
