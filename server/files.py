"""The files and folders that flags name."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from server.errors import ConfigError


def read_file(path: Path, flag: str) -> bytes:
    """Read a whole file. Raises `ConfigError` that names the flag and the file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{flag} {path} cannot be read: {error.strerror}") from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all, and leave nothing unfinished behind. Raises OSError."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    encoded = content.encode() if isinstance(content, str) else content
    try:
        with unfinished.open("wb") as file:
            file.write(encoded)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()
        raise


def make_folder(path: Path, flag: str) -> None:
    """Make a folder to write to, unless it is there. Raises `ConfigError` that names flag and folder."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{flag} {path} cannot be made: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"{flag} {path} cannot be written to by this user")
