"""Who has to go when too many are connected, so that nobody who is idle locks others out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping


def dispensable(users: Mapping[int, int], busy: Container[int]) -> int | None:
    """Return the connection to end: of the user with most of them, the one that has been silent longest.

    So whoever opens many shuts out himself alone.

    Args:
        users: each connection's uid, the connection that has been silent longest first.
        busy: the connections that hold a GPU or wait for one; they stay.

    Returns:
        None when all are busy.
    """
    crowd = Counter(users.values())
    idle = [number for number in users if number not in busy]
    return max(idle, key=lambda number: crowd[users[number]], default=None)
