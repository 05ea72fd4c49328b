"""The thread that owns an engine: one batch at a time, in the order given, or two where they overlap."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue

from optimizer.batching import Batch
from server.engines.engine import Engine
from server.engines.overlapping import UNDER_WAY, Overlapping, overlapping
from server.scheduling.batch_assembly import Call
from server.scheduling.batch_run import Begun, Outcome, begin_batch, finish_batch, run_batch

_LOG = logging.getLogger(__name__)


class EngineThread:
    """Runs batches and reports each outcome through `post`, which is called in the thread and must not block.

    No exception of an engine, whatever its class, ends the thread: it becomes the batch's outcome. After
    `stop` nothing new is begun; the engine is closed in the thread once what is under way is done. The thread
    is a daemon, so that an engine that hangs cannot keep the process from ending.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Callable[[], float],
        post: Callable[[Outcome], None],
        on_closed: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._post = post
        self._on_closed = on_closed
        self._batches: SimpleQueue[Batch[Call] | None] = SimpleQueue()
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="boulton-engine", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def submit(self, batch: Batch[Call]) -> None:
        """Queue a batch behind those submitted before."""
        self._batches.put(batch)

    def stop(self) -> None:
        """Begin nothing more, then close the engine. Returns at once."""
        self._stopping = True
        self._batches.put(None)

    def join(self) -> None:
        """Wait until the engine is closed."""
        self._thread.join()

    def _serve(self) -> None:
        engine = overlapping(self._engine)
        try:
            if engine is None:
                self._one_by_one()
            else:
                self._overlapped(engine)
        finally:
            self._close()

    def _one_by_one(self) -> None:
        while (batch := self._batches.get()) is not None and not self._stopping:
            self._post(run_batch(self._engine, self._clock, batch))
            del batch  # its requests' memory must not be held while waiting for the next one

    def _overlapped(self, engine: Overlapping) -> None:
        begun: deque[Begun] = deque()
        done_s = self._clock()
        while self._begin_more(engine, begun) or begun:
            if begun:
                outcome = finish_batch(engine, self._clock, begun.popleft(), done_s)
                done_s = outcome.computed_s
                self._post(outcome)
                del outcome

    def _begin_more(self, engine: Overlapping, begun: deque[Begun]) -> bool:
        """Begin what is there, as far as the engine takes it; False once nothing more will be begun.

        Waits for a batch only where none is under way.
        """
        while len(begun) < UNDER_WAY and not self._stopping:
            try:
                batch = self._batches.get(block=not begun)
            except Empty:
                break
            if batch is not None and not self._stopping:
                begun.append(begin_batch(engine, self._clock, batch))
            del batch
        return not self._stopping

    def _close(self) -> None:
        try:
            self._engine.close()
        except Exception:
            _LOG.exception("the engine could not be closed")
        finally:
            self._on_closed()
