"""Why a request was not accepted, in words for its client: what came, what is allowed, what to do."""

from __future__ import annotations

from optimizer.batching import BatchQueue, QueueLimits, Refusal
from server.errors import DeadlineExceeded, InvalidArgument, RequestError, Unavailable
from server.scheduling.batch_assembly import Call, CallRequest
from server.scheduling.service_time import ServiceTimes

_SOONEST_RETRY_S = 0.1

SHUTTING_DOWN = "the model is shutting down; send the request to another instance or try again later"


def refusal_error(
    refusal: Refusal,
    request: CallRequest,
    queue: BatchQueue[Call],
    limits: QueueLimits,
    service_times: ServiceTimes,
) -> RequestError:
    """Return the error that answers `request`."""
    if refusal is Refusal.DRAINING:
        return Unavailable(SHUTTING_DOWN)
    if refusal is Refusal.TOO_LARGE:
        return _too_large(request, limits)
    waiting_s = queue.queued_images / queue.batch_limit * service_times.predict(queue.batch_limit)
    if refusal is Refusal.DEADLINE:
        own_s = service_times.predict(min(request.images, queue.batch_limit))
        return _hopeless(request, waiting_s, own_s)
    return _queue_full(queue, limits, waiting_s)


def _too_large(request: CallRequest, limits: QueueLimits) -> InvalidArgument:
    given = f"{request.images} images and {request.nbytes} bytes"
    return InvalidArgument(
        f"a request of {given} is larger than the queue, which holds {_bounds(limits)}; split it"
    )


def _hopeless(request: CallRequest, waiting_s: float, own_s: float) -> DeadlineExceeded:
    left_s = (request.deadline_s or 0.0) - request.arrival_s
    if left_s <= 0:
        return DeadlineExceeded(f"the deadline had passed {-left_s * 1e3:.1f} ms before the request was read")
    work = f"about {waiting_s * 1e3:.1f} ms of work wait, and a batch takes about {own_s * 1e3:.1f} ms"
    return DeadlineExceeded(
        f"the deadline, {left_s * 1e3:.1f} ms away, cannot be met: {work}; allow more time"
    )


def _queue_full(queue: BatchQueue[Call], limits: QueueLimits, waiting_s: float) -> Unavailable:
    waiting = f"{queue.queued_images} images and {queue.queued_bytes} bytes"
    message = f"the model's queue is full: {waiting} wait, {_bounds(limits)} may; try again later"
    return Unavailable(message, retry_after_s=max(_SOONEST_RETRY_S, waiting_s))


def _bounds(limits: QueueLimits) -> str:
    return f"at most {limits.max_images} images and {limits.max_bytes} bytes"
