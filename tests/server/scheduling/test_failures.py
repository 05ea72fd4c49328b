from __future__ import annotations

import logging

import pytest

from server.errors import CudaLost
from server.scheduling.failures import Failures

ERROR = ValueError("no fives")


def test_parts_of_a_batch_may_do_better_until_too_many_failed_in_a_row() -> None:
    failures = Failures()
    tried = [failures.may_run_again(ERROR) for _ in range(1000)]
    assert tried[0]
    assert not tried[-1]
    failures.end()
    assert failures.may_run_again(ERROR)


@pytest.mark.parametrize("error", [CudaLost("the GPU has fallen off the bus"), SystemExit(1)])
def test_what_is_lost_for_good_is_not_run_again(error: BaseException) -> None:
    assert not Failures().may_run_again(error)


def test_every_failure_is_logged_but_few_with_their_traces(caplog: pytest.LogCaptureFixture) -> None:
    failures = Failures()
    with caplog.at_level(logging.ERROR):
        reasons = [failures.log(3, ERROR, now_s) for now_s in (0.0, 1.0, 2.0, 1000.0)]
    assert reasons == ["ValueError: no fives"] * 4
    assert [record.exc_info is not None for record in caplog.records] == [True, False, False, True]


def test_a_long_reason_is_cut() -> None:
    assert len(Failures().log(1, ValueError("x" * 10_000), 0.0)) < 1000
