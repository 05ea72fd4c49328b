"""The thread of one GPU: does what it is told, in turn, however long NVML takes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread

from optimizer.devices.gpu import DeviceError
from optimizer.devices.keeper.clerk import Job, Outcome, Work
from optimizer.devices.keeper.steward import Steward
from optimizer.devices.nvml.actuator import ClockBounds

logger = logging.getLogger("boulton.keeper")


class Worker:
    """Runs jobs of one GPU, one after the other, and reports each.

    So a GPU that is being set when its client dies is set to the end and then restored, and no GPU waits for
    another's.

    Args:
        steward: sets the GPU.
        report: takes each outcome, in the worker's thread.
    """

    def __init__(self, steward: Steward, report: Callable[[Outcome], None]) -> None:
        self._steward = steward
        self._report = report
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        # A daemon thread: a driver that never comes back must not keep the process from ending.
        self._thread = Thread(target=self._work, name="gpu", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Have a job done after all earlier ones."""
        self._jobs.put(job)

    def _work(self) -> None:
        while True:
            self._report(perform(self._steward, self._jobs.get()))


def perform(steward: Steward, job: Job) -> Outcome:
    """Do a job and say how it went."""
    try:
        return Outcome(job, bounds=_do(steward, job))
    except DeviceError as failure:
        return Outcome(job, failure=failure)
    except Exception as error:
        # A fault of ours: without this the thread would end, and the GPU would never be given back.
        logger.exception("%s: %s failed", job.uuid, job.work.value)
        return Outcome(job, failure=DeviceError(f"{job.uuid}: a fault in the keeper: {error!r}"))


def _do(steward: Steward, job: Job) -> ClockBounds | None:
    if job.work is Work.INSPECT:
        return steward.inspect()
    if job.work is Work.APPLY:
        steward.apply(job.setting)
    else:
        steward.restore()
    return None
