from __future__ import annotations

import pytest

from bench.load.measuring import UNANSWERED, Recorder


def recorder(*, open_loop: bool) -> Recorder:
    return Recorder(start_s=10.0, end_s=20.0, open_loop=open_loop, slo_s=0.5)


def test_an_open_loop_counts_what_was_due_in_the_window() -> None:
    counts = recorder(open_loop=True)

    counts.answer(9.9, 10.1, 1)  # due in the warm-up
    counts.answer(10.0, 10.2, 2)
    counts.answer(19.9, 25.0, 4)  # due in time, answered after the end

    result = counts.result(0.5, 8, interrupted=False)
    assert result.latency_s.tolist() == pytest.approx([0.2, 5.1])
    assert (result.images, result.images_late) == (6, 4)
    assert result.span_s == pytest.approx(15.0)


def test_a_closed_loop_counts_what_was_answered_in_the_window() -> None:
    counts = recorder(open_loop=False)

    counts.answer(9.9, 10.1, 1)
    counts.answer(19.9, 25.0, 4)

    result = counts.result(0.5, 8, interrupted=False)
    assert (result.images, len(result.latency_s), result.span_s) == (1, 1, 10.0)


def test_failures_are_counted_by_code_with_the_first_message() -> None:
    counts = recorder(open_loop=True)

    counts.failure(11.0, 11.1, 2, "UNAVAILABLE", "queue is full")
    counts.failure(12.0, 12.1, 3, "UNAVAILABLE", "queue is full again")
    counts.failure(13.0, 13.1, 1, "INTERNAL", "x" * 1000)
    counts.failure(1.0, 1.1, 1, "UNAVAILABLE", "in the warm-up")

    failures = counts.result(0.0, 1, interrupted=False).failures
    assert (failures["UNAVAILABLE"].requests, failures["UNAVAILABLE"].images) == (2, 5)
    assert failures["UNAVAILABLE"].message == "queue is full"
    assert len(failures["INTERNAL"].message) <= 300


@pytest.mark.parametrize("open_loop", [True, False])
def test_requests_without_an_answer_are_failures(open_loop: bool) -> None:
    counts = recorder(open_loop=open_loop)

    counts.unanswered(15.0, 2)

    assert counts.result(0.0, 1, interrupted=False).failures[UNANSWERED].images == 2


def test_lag_is_how_much_later_than_due_a_request_was_sent() -> None:
    counts = recorder(open_loop=True)

    counts.sent(9.0, 9.5)
    counts.sent(11.0, 11.25)
    counts.sent(12.0, 11.9999)

    assert counts.result(0.0, 1, interrupted=False).lag_s.tolist() == [0.25, 0.0]


def test_progress_counts_the_warm_up_too() -> None:
    counts = recorder(open_loop=True)

    counts.answer(1.0, 2.0, 1)
    counts.failure(1.0, 2.0, 1, "INTERNAL", "")

    assert (counts.answered, counts.failed) == (1, 1)
