"""Files that commands write their results to."""

from __future__ import annotations

from pathlib import Path

from server.errors import ConfigError


def write_text(path: Path, text: str, flag: str) -> None:
    """Write a file as a whole. Raises ConfigError, e.g. where the disk is full."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{flag} {path} cannot be written: {error.strerror}") from error


def check_writable(path: Path | None, flag: str) -> None:
    """Find out before a long run rather than after it; `-` and None are no files. Raises ConfigError."""
    if path is None or path == Path("-"):
        return
    try:
        path.open("a").close()
    except OSError as error:
        raise ConfigError(f"{flag} {path} cannot be written: {error.strerror}") from error
