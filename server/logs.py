"""Structured logs on stderr: one event a line, as text for people or as JSON for machines.

Names, ids and messages come from strangers. Whatever could end a line, move the cursor or turn the reading
direction is escaped, so that nobody can forge a line or hide one.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from datetime import UTC, datetime
from typing import TextIO

ROOT = "boulton"
LOGGERS = (ROOT, "server", "optimizer")
FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")
TRACE_INDENT = "    | "
MAX_MESSAGE_CHARS = 16384

# What every record has; anything else was given as `extra` and is part of the event.
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def escape(text: str) -> str:
    r"""Return `text` on one line: CR, LF, ESC and everything else unprintable as `\n`, `\x1b`, `\u202e`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


class TextFormatter(logging.Formatter):
    """`2026-08-01T12:00:00.123Z INFO governor: message key=value`; tracebacks follow, every line indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the event's line."""
        name = record.name.removeprefix(f"{ROOT}.")
        extras = "".join(f" {escape(key)}={_quoted(value)}" for key, value in _extras(record).items())
        line = f"{_when(record)} {record.levelname} {escape(name)}: {escape(_message(record))}{extras}"
        return "\n".join([line, *(f"{TRACE_INDENT}{escape(part)}" for part in _trace(self, record))])


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, what was given as `extra`, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the event's line, in ASCII."""
        event = _extras(record) | {
            "time": _when(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        trace = _trace(self, record)
        return json.dumps(event | ({"traceback": trace} if trace else {}), default=str, sort_keys=True)


def configure_logging(
    form: str = "text", level: str = "info", stream: TextIO | None = None
) -> logging.Handler:
    """Send Boulton's events to `stream` (stderr) in one form. Calling again replaces the earlier handler.

    Args:
        form: `text` or `json`.
        level: the least level that is written: `debug`, `info`, `warning` or `error`.
        stream: where to; None: stderr.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter({"text": TextFormatter, "json": JsonFormatter}[form]())
    handler.set_name(ROOT)
    for name in LOGGERS:
        _attach(logging.getLogger(name), handler, level.upper())
    logging.captureWarnings(True)
    _attach(logging.getLogger("py.warnings"), handler, "WARNING")
    return handler


def _attach(logger: logging.Logger, handler: logging.Handler, level: str) -> None:
    for old in [each for each in logger.handlers if each.get_name() == ROOT]:
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False


class RateLimit:
    """Lets one event of each kind through in an interval, and counts the others. Safe from any thread.

    Args:
        interval_s: how long a kind stays quiet; `math.inf` means once only.
        clock: seconds, monotonic.
        kinds: how many kinds are remembered; beyond, the one longest unseen is forgotten.
    """

    def __init__(
        self, interval_s: float, *, clock: Callable[[], float] = time.monotonic, kinds: int = 1024
    ) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._kinds = kinds
        self._seen: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, kind: Hashable) -> int | None:
        """Return how many were held back since the last was let through; None: hold this one back."""
        with self._lock:
            return self._admit(kind, self._clock())

    def _admit(self, kind: Hashable, now_s: float) -> int | None:
        last_s, held = self._seen.pop(kind, (None, 0))
        if last_s is not None and now_s - last_s < self._interval_s:
            self._seen[kind] = (last_s, held + 1)
            return None
        self._seen[kind] = (now_s, 0)
        if len(self._seen) > self._kinds:
            self._seen.popitem(last=False)
        return held


def log_limited(
    limit: RateLimit, logger: logging.Logger, level: int, kind: Hashable, message: str, *args: object
) -> None:
    """Log an event unless its kind was logged within the limit's interval; say how many were held back."""
    held = limit.admit(kind)
    if held is not None:
        suffix = f" ({held} more like this)" if held else ""
        logger.log(level, message + suffix, *args)


def _when(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if len(text) > MAX_MESSAGE_CHARS:
        return f"{text[:MAX_MESSAGE_CHARS]}... ({len(text)} characters)"
    return text


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _PLAIN}


def _quoted(value: object) -> str:
    text = escape(str(value))
    return text if text and not any(char in text for char in ' "=') else json.dumps(text, ensure_ascii=False)


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    parts = formatter.formatException(record.exc_info).splitlines() if record.exc_info else []
    return parts + (record.stack_info.splitlines() if record.stack_info else [])
