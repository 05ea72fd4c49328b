"""Who has to go when too many are connected."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from optimizer.devices.keeper.crowd import dispensable


def test_the_one_that_was_silent_longest_goes() -> None:
    assert dispensable({3: 0, 1: 0, 2: 0}, ()) == 3


def test_whoever_is_busy_stays() -> None:
    assert dispensable({3: 0, 1: 0, 2: 0}, {3, 1}) == 2


def test_nobody_goes_where_all_are_busy() -> None:
    assert dispensable({1: 0, 2: 7}, {1, 2}) is None


@given(crowd=st.lists(st.integers(0, 2), min_size=1, max_size=64), few=st.integers(1, 5))
def test_a_user_of_few_stays_while_another_has_more(crowd: list[int], few: int) -> None:
    """Users 0 to 2 crowd; user 9 came first and has said nothing."""
    users = dict(enumerate([9] * few + crowd))
    leaving = dispensable(users, ())
    most = max(crowd.count(user) for user in set(crowd))
    assert leaving is not None
    assert (users[leaving] == 9) == (few >= most)
