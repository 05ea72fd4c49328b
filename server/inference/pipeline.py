"""One inference from the bytes that came to the bytes that go."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from server.engines.device_rows import DeviceRows, exchanging
from server.errors import Unimplemented
from server.inference.inputs import InputReader, Regions
from server.inference.outputs import Place, device_targets, open_regions, place, raw_outputs
from server.inference.plan import InferPlan
from server.lifecycle import Lifecycle
from server.models.service import ModelService
from server.models.table import ModelTable
from server.scheduling.batch_assembly import CallRequest
from server.wire.outside_memory import Tensor
from server.wire.request_parser import RequestParser, SplitRequest
from server.wire.response_encoder import encode_response
from server.wire.tensors import RequestMessage


class Prepared(NamedTuple):
    """A request that fits its model: what it asks for, and until when on the schedulers' clock."""

    request: RequestMessage
    model: ModelService
    plan: InferPlan
    deadline_s: float | None


class Started(NamedTuple):
    """A request in its model's queue; it holds the model until finished or abandoned."""

    prepared: Prepared
    regions: tuple[Place, ...]
    queued: CallRequest


class InferPipeline:
    """Parses, plans, computes, encodes. Belongs to the event loop.

    `infer` does all of it. A stream takes the steps one by one, so that it needs no task for each request:
    `parse`, `prepare`, `start`, and `finish` or `abandon`.

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

    async def infer(self, request: RequestMessage, time_left_s: float | None) -> bytes:
        """Answer a request that came outside a stream.

        Args:
            request: from `parse`.
            time_left_s: until the client gives up; None when it waits for ever.

        Raises:
            RequestError: any of them; each says why.
        """
        prepared = self.prepare(request, time_left_s)
        if prepared.plan.encoded:
            return await self.infer_encoded(prepared)
        return await self.finish(self.start(prepared))

    def parse(self, message: bytes) -> RequestMessage:
        """Take a request apart. Raises `InvalidArgument`."""
        return self._parser.parse(message)

    def resolve(self, split: SplitRequest) -> RequestMessage:
        """Understand a request that was taken apart elsewhere. Raises `InvalidArgument`."""
        return self._parser.resolve(split)

    def prepare(self, request: RequestMessage, time_left_s: float | None) -> Prepared:
        """Find the model and the plan for a request. Raises `RequestError`."""
        self._lifecycle.check_accepting()
        header = request.header
        model = self._models.get(header.model_name, header.model_version)
        plan = model.plans.find(header)
        return Prepared(request, model, plan, self._deadline_s(time_left_s, plan.timeout_s))

    async def infer_encoded(self, prepared: Prepared, *, in_stream: bool = False) -> bytes:
        """Answer a request with encoded images, which takes waiting before it can start."""
        with prepared.model as model:
            image = model.spec.image
            arrays = await self._reader.read_encoded(prepared.plan, prepared.request, image)
            return await self.finish(self._queue(prepared, arrays), in_stream=in_stream)

    def start(self, prepared: Prepared) -> Started:
        """Put a request without encoded images into its model's queue. Raises `RequestError`."""
        return self._queue(prepared, self._reader.read(prepared.plan, prepared.request))

    async def finish(self, started: Started, *, in_stream: bool = False) -> bytes:
        """Wait for the answer and encode it; a cancelled task abandons it. Raises `RequestError`.

        In a stream the last answer may have to say that it is.
        """
        (request, model, plan, _), regions, queued = started
        try:
            answer = await model.scheduler.answer(queued)
            raw = raw_outputs(plan, answer.outputs, model.spec.labels)
            if plan.placed:
                raw = place(plan, raw, regions)
            return encode_response(plan.stream_head if in_stream else plan.head, request.id, raw)
        finally:
            model.release()

    def abandon(self, started: Started) -> None:
        """Withdraw a request that nobody will wait for."""
        model = started.prepared.model
        model.scheduler.withdraw(started.queued)
        model.release()

    def _queue(self, prepared: Prepared, arrays: tuple[Tensor, ...]) -> Started:
        _, model, plan, deadline_s = prepared
        regions = open_regions(plan, self._regions) if plan.placed else ()
        targets = device_targets(plan, regions, len(model.spec.outputs)) if plan.placed else ()
        _check_device(model, arrays, targets)
        queued = model.scheduler.submit(
            arrays,
            plan.images,
            targets=targets,
            nbytes=plan.nbytes,
            deadline_s=deadline_s,
            priority=plan.priority,
        )
        model.hold()
        return Started(prepared, regions, queued)

    def _deadline_s(self, time_left_s: float | None, timeout_s: float | None) -> float | None:
        if time_left_s is None and timeout_s is None:
            return None
        limits = [limit for limit in (time_left_s, timeout_s) if limit is not None]
        return self._clock() + min(limits)


def _check_device(
    model: ModelService, arrays: tuple[Tensor, ...], targets: tuple[DeviceRows | None, ...]
) -> None:
    on_device = targets or any(isinstance(array, DeviceRows) for array in arrays)
    if on_device and exchanging(model.engine) is None:
        raise Unimplemented(
            f"model '{model.spec.name}' runs on {model.spec.platform}, which takes no CUDA shared memory: "
            "use system shared memory, or send raw contents"
        )
