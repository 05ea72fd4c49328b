"""Saying things of one kind once in a while, so that nobody can fill the log."""

from __future__ import annotations


class Quiet:
    """Lets one event of a kind through in an interval and counts the others.

    Args:
        interval_s: how long a kind stays quiet.
        most_kinds: how many kinds are remembered; beyond that all are forgotten.
    """

    def __init__(self, interval_s: float = 10.0, most_kinds: int = 256) -> None:
        self._interval_s = interval_s
        self._most_kinds = most_kinds
        self._seen: dict[str, tuple[float, int]] = {}

    def admit(self, kind: str | None, now_s: float) -> int | None:
        """Return how many were held back since the last one; None: hold this one back."""
        if kind is None:
            return 0
        last_s, held = self._seen.get(kind, (None, 0))
        if last_s is not None and now_s - last_s < self._interval_s:
            self._seen[kind] = (last_s, held + 1)
            return None
        if len(self._seen) >= self._most_kinds:
            self._seen.clear()
        self._seen[kind] = (now_s, 0)
        return held
