"""Names that policies have elsewhere."""

from __future__ import annotations

FIXED = "fixed"
"""What `boulton serve` calls the default setting when nothing moves it."""
PLAYED_AS = "default"


def played_name(name: str) -> str:
    """Return what a policy is called where it is simulated."""
    return PLAYED_AS if name == FIXED else name
