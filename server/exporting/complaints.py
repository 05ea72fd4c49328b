"""What others complain of, told in a line."""

from __future__ import annotations


def in_a_line(error: object) -> str:
    """Return what an exception says, its lines joined."""
    return " ".join(str(error).split())
