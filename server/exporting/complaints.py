"""What others complain of, told in a line."""

from __future__ import annotations

# What a model's own code may raise: sys.exit() in it must not end the export without a word, Ctrl-C may.
USERS_CODE_RAISES = (Exception, SystemExit)


def in_a_line(error: object) -> str:
    """Return what an exception says, its lines joined."""
    return " ".join(str(error).split())


def told(error: BaseException) -> str:
    """Return the type of an exception and what it says, its lines joined."""
    return f"{type(error).__name__}: {in_a_line(error)}" if str(error) else type(error).__name__


def said(error: BaseException) -> str:
    """Return what an exception says, with its type where that alone says little."""
    return in_a_line(error) if str(error) and isinstance(error, Exception) else told(error)
