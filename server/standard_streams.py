"""Standard input, output and error, whatever state the process was started with."""

from __future__ import annotations

import errno
import io
import os
import sys

# What a write comes upon that is nobody's mistake: a full disk, a quota, a limit, a device that fails.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def open_missing() -> None:
    """Open those that were closed before the start, to nowhere.

    Else what is opened next takes their numbers, and whatever a library says on stderr goes into a socket.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def write_anything() -> None:
    """Have stdout escape what its encoding has not: names of files may be any bytes."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def give_up_stdout() -> None:
    """Let what is still buffered go nowhere: the interpreter would fail on it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
