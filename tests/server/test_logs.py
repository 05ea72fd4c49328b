from __future__ import annotations

import io
import json
import logging
import math
import re
from collections.abc import Callable, Iterator

import pytest

from server.logs import LOGGERS, RateLimit, configure_logging, escape, log_limited

FORGERIES = [
    "a\nERROR root: owned",
    "a\r\nb",
    "a\x1b[2Kb",
    "a\u2028b",
    "a\u202eb",
    "a\x00b",
    "a\ud800b",
    "a\x85b",
]

logger = logging.getLogger("boulton.test")


@pytest.fixture
def log() -> Iterator[Callable[..., io.StringIO]]:
    """Configures logging into a buffer, and takes it back afterwards."""
    handlers: list[logging.Handler] = []
    names = (*LOGGERS, "py.warnings")
    before = {name: (logging.getLogger(name).level, logging.getLogger(name).propagate) for name in names}

    def configure(form: str = "text", level: str = "info") -> io.StringIO:
        stream = io.StringIO()
        handlers.append(configure_logging(form, level, stream))
        return stream

    yield configure
    logging.captureWarnings(False)
    for name, (level, propagate) in before.items():
        each = logging.getLogger(name)
        each.setLevel(level)
        each.propagate = propagate
        for handler in handlers:
            each.removeHandler(handler)


def test_text_is_one_line_that_a_person_can_read(log: Callable[..., io.StringIO]) -> None:
    stream = log()

    logger.warning("model '%s' failed", "net")

    pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING test: model 'net' failed\n"
    assert re.fullmatch(pattern, stream.getvalue())


def test_text_appends_what_was_given_beside_the_message(log: Callable[..., io.StringIO]) -> None:
    stream = log()

    logger.info("loaded", extra={"model": "net", "note": 'two "words"', "empty": ""})

    assert stream.getvalue().endswith('loaded model=net note="two \\"words\\"" empty=""\n')


def test_json_is_one_object_a_line(log: Callable[..., io.StringIO]) -> None:
    stream = log("json")

    logger.info("loaded %d", 3, extra={"model": "net", "level": "forged"})

    event = json.loads(stream.getvalue())
    assert event.pop("time").endswith("Z")
    assert event == {"level": "info", "logger": "boulton.test", "message": "loaded 3", "model": "net"}


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("name", FORGERIES)
def test_names_from_clients_cannot_forge_lines(log: Callable[..., io.StringIO], form: str, name: str) -> None:
    stream = log(form)

    logger.info("request %s", name, extra={"id": name})

    text = stream.getvalue()
    assert text.endswith("\n")
    assert text[:-1].isprintable()


@pytest.mark.parametrize("name", FORGERIES)
def test_json_gives_the_name_back_as_it_was(log: Callable[..., io.StringIO], name: str) -> None:
    stream = log("json")

    logger.info("%s", name)

    assert json.loads(stream.getvalue())["message"] == name


def test_lines_of_a_traceback_cannot_pass_for_events(log: Callable[..., io.StringIO]) -> None:
    stream = log()

    try:
        raise ValueError("first\n2026-01-01T00:00:00.000Z ERROR root: owned")
    except ValueError:
        logger.exception("failed")

    first, *trace = stream.getvalue().splitlines()
    assert first.endswith("ERROR test: failed")
    assert any("owned" in line for line in trace)
    assert all(line.startswith("    | ") for line in trace)


def test_json_holds_the_traceback(log: Callable[..., io.StringIO]) -> None:
    stream = log("json")

    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("failed")

    assert json.loads(stream.getvalue())["traceback"][-1] == "ValueError: broken"


def test_levels_below_are_not_written(log: Callable[..., io.StringIO]) -> None:
    stream = log(level="warning")

    logger.info("quiet")
    logger.warning("loud")

    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()


def test_configuring_twice_does_not_write_twice(log: Callable[..., io.StringIO]) -> None:
    first, second = log(), log()

    logger.info("once")

    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


def test_modules_that_log_under_their_own_name_are_heard(log: Callable[..., io.StringIO]) -> None:
    stream = log()

    logging.getLogger("server.scheduling.scheduler").info("here")

    assert "server.scheduling.scheduler: here" in stream.getvalue()


def test_a_long_message_is_cut(log: Callable[..., io.StringIO]) -> None:
    stream = log()

    logger.info("x" * 100_000)

    assert len(stream.getvalue()) < 20_000
    assert "(100000 characters)" in stream.getvalue()


def test_escaping_leaves_plain_text_alone() -> None:
    assert escape("efficientnet-lite0, naïve 数") == "efficientnet-lite0, naïve 数"
    assert escape("a\nb") == "a\\nb"


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_kind_is_let_through_once_an_interval_and_the_rest_is_counted() -> None:
    clock = Clock()
    limit = RateLimit(10.0, clock=clock)

    assert [limit.admit("full") for _ in range(3)] == [0, None, None]
    assert limit.admit("other") == 0
    clock.now_s += 10.0
    assert limit.admit("full") == 2
    assert limit.admit("full") is None


def test_once_means_once() -> None:
    clock = Clock()
    limit = RateLimit(math.inf, clock=clock)

    assert limit.admit("no keeper") == 0
    clock.now_s += 1e9
    assert limit.admit("no keeper") is None


def test_kinds_remembered_are_bounded() -> None:
    limit = RateLimit(math.inf, clock=Clock(), kinds=2)

    assert [limit.admit(kind) for kind in ("a", "b", "c")] == [0, 0, 0]
    assert limit.admit("c") is None
    assert limit.admit("a") == 0


def test_a_limited_event_says_how_many_were_held_back(log: Callable[..., io.StringIO]) -> None:
    stream, clock = log(), Clock()
    limit = RateLimit(5.0, clock=clock)

    for _ in range(4):
        log_limited(limit, logger, logging.WARNING, "full", "queue of %s is full", "net")
    clock.now_s += 5.0
    log_limited(limit, logger, logging.WARNING, "full", "queue of %s is full", "net")

    first, second = stream.getvalue().splitlines()
    assert first.endswith("queue of net is full")
    assert second.endswith("queue of net is full (3 more like this)")
