"""How many files and connections the server may have open at once."""

from __future__ import annotations

import resource
from contextlib import suppress

ENOUGH = 1 << 16


def allow_many() -> str:
    """Raise the limit to what this user may have, up to `ENOUGH`; return a note for the log. Never fails.

    Shells and systemd start programs with 1024, for the sake of those that use select(). As many clients that
    say nothing would shut out all others, and the metrics with them. Front ends inherit it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    limit = "no limit" if soft == resource.RLIM_INFINITY else f"{soft} at once"
    return f"connections and files: {limit}"
