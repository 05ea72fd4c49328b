"""The other end of a worker: starting it, giving it orders, and saying why it failed."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

from bench.compare.settling import SettlingRule
from bench.compare.worker import Answer, Began, Failed, Measure, Ran, Ready, Stop, Warm, Warmed, work
from server.engines.registry import EngineRequest
from server.errors import EngineError

T = TypeVar("T", Ready, Warmed, Began, Ran)

_PATIENCE_S = 300.0
"""For one order beyond what it should take."""

_END_S = 10.0
_LAST_LINES = 3


class WorkerFailed(EngineError):
    """A worker could not do something; `final` when it is of no use any more."""

    def __init__(self, reason: str, *, final: bool) -> None:
        super().__init__(reason)
        self.final = final


class Worker:
    """A process that holds one engine. `start` first, `close` last.

    Args:
        engine: its name in the registry.
        request: what it loads.
        log: where what the engine prints goes; its directory exists.
    """

    def __init__(self, engine: str, request: EngineRequest, log: Path) -> None:
        self._engine = engine
        self._request = request
        self._log = log
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None

    def start(self, limit_s: float) -> tuple[Ready, float]:
        """Start the process; return what it says when it is ready, and after how many seconds."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        arguments = (theirs, self._engine, self._request, self._log)
        began_s = time.monotonic()
        self._process = context.Process(target=work, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self._connection = ours
        ready = self._expect(Ready, limit_s)
        return ready, time.monotonic() - began_s

    def warm_up(self, batch: int, rule: SettlingRule) -> Warmed:
        """Warm up one batch size. Raises WorkerFailed."""
        self._send(Warm(batch, rule))
        return self._expect(Warmed, rule.limit_s + _PATIENCE_S)

    def measure(self, batch: int, lead_s: float, meanwhile: Callable[[], None]) -> Ran:
        """Measure for as long as `meanwhile` takes. Raises WorkerFailed."""
        self._send(Measure(batch, lead_s))
        self._expect(Began, 2 * lead_s + _PATIENCE_S)
        meanwhile()
        self._send(Stop())
        return self._expect(Ran, _PATIENCE_S)

    def close(self) -> None:
        """End the process, at once if it does not go by itself. Idempotent."""
        if self._connection is not None:
            with suppress(OSError, ValueError):
                self._connection.send(None)
                self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.join(_END_S)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()

    def _send(self, order: Warm | Measure | Stop) -> None:
        try:
            self._open().send(order)
        except OSError as error:
            raise self._ended() from error

    def _expect(self, kind: type[T], limit_s: float) -> T:
        connection = self._open()
        try:
            if not connection.poll(limit_s):
                self._kill()
                raise WorkerFailed(f"no answer within {limit_s:.0f} s: ended{self._last_words()}", final=True)
            answer: Answer = connection.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if isinstance(answer, Failed):
            raise WorkerFailed(answer.reason, final=answer.final)
        if not isinstance(answer, kind):
            raise WorkerFailed(f"answered {answer} where {kind.__name__} was due", final=True)
        return answer

    def _open(self) -> Connection:
        if self._connection is None:
            raise WorkerFailed("the process is not running", final=True)
        return self._connection

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _ended(self) -> WorkerFailed:
        code = None
        if self._process is not None:
            self._process.join(_END_S)
            code = self._process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return WorkerFailed(f"the process ended with {how}{self._last_words()}", final=True)

    def _last_words(self) -> str:
        try:
            lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return ""
        said = " / ".join([line.strip() for line in lines if line.strip()][-_LAST_LINES:])
        return f"; it said: {said}" if said else ""
