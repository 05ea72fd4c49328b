from __future__ import annotations

import pytest

from optimizer.devices.nvml.failures import NvmlFailure
from optimizer.devices.nvml.watch import Watch

FUNCTION = "nvmlDeviceGetName"


def failing(code: int) -> NvmlFailure:
    return NvmlFailure(f"{FUNCTION}: its name", function=FUNCTION, code=code)


def ask(watch: Watch, code: int) -> None:
    def fail() -> None:
        raise failing(code)

    assert watch.ask("the name", fail) is None


@pytest.mark.parametrize(
    ("code", "consequence"),
    [
        (10, "the name is not known for now, and is asked for again"),
        (3, "serving goes on without the name"),
        (15, "the GPU is neither read nor set any more; serving goes on as far as it can"),
        (9, "the GPU is neither read nor set any more; serving goes on as far as it can"),
    ],
)
def test_the_line_says_what_follows(caplog: pytest.LogCaptureFixture, code: int, consequence: str) -> None:
    ask(Watch("GPU-1", lambda: 0.0), code)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"GPU-1: {failing(code)}; {consequence}"


def test_a_failure_of_one_kind_is_one_line_and_another_kind_another(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch("GPU-1", lambda: 0.0)
    for code in (10, 10, 999, 10, 999):
        ask(watch, code)
    assert len(caplog.records) == 2


def test_what_fails_because_of_the_closing_is_not_said(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch("GPU-1", lambda: 0.0)

    def fail_after_closing() -> None:
        watch.close()
        raise failing(1)

    assert watch.ask("the name", fail_after_closing) is None
    assert not caplog.records


def test_only_what_nvml_says_is_caught() -> None:
    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Watch("GPU-1", lambda: 0.0).ask("the name", broken)


def test_what_lacks_is_asked_again_after_a_while() -> None:
    now_s = [0.0]
    watch = Watch("GPU-1", lambda: now_s[0])
    ask(watch, 3)
    assert watch.lacks("the name")
    assert not watch.lacks("the age")
    assert watch.ask("the name", lambda: "early") is None
    assert watch.ask("the age", lambda: 3) == 3
    now_s[0] = 61.0
    assert watch.ask("the name", lambda: "late") == "late"


def test_the_line_says_that_nvml_is_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch("GPU-1", lambda: 0.0, list)
    ask(watch, 1)
    assert "until NVML, opened anew every minute, answers again" in caplog.text
    watch.come_back()
    assert watch.lost
