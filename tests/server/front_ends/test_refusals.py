from __future__ import annotations

import logging

import pytest

from server.errors import InvalidArgument, RequestError, Unavailable
from server.front_ends.refusals import error_of, refusal_of


@pytest.mark.parametrize("kind", RequestError.__subclasses__())
def test_every_error_arrives_as_what_it_was(kind: type[RequestError]) -> None:
    arrived = error_of(refusal_of(kind("what came, and what is allowed")))
    assert type(arrived) is kind
    assert str(arrived) == "what came, and what is allowed"


def test_so_does_when_to_try_again() -> None:
    arrived = error_of(refusal_of(Unavailable("full", retry_after_s=0.25)))
    assert isinstance(arrived, Unavailable)
    assert arrived.retry_after_s == 0.25


def test_a_long_text_is_cut_once() -> None:
    cut = str(error_of(refusal_of(InvalidArgument("x" * 5000))))
    assert str(error_of(refusal_of(InvalidArgument(cut[:1024])))) == cut[:1024]
    assert cut.endswith("...")


def test_what_clients_must_not_know_is_logged_where_it_happened(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        arrived = error_of(refusal_of(ValueError("/a/secret")))
    assert "secret" not in str(arrived)
    assert any(record.exc_info and "secret" in str(record.exc_info[1]) for record in caplog.records)
