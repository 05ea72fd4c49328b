"""Reading the files that flags name."""

from __future__ import annotations

from pathlib import Path

from server.errors import ConfigError


def read_file(path: Path, flag: str) -> bytes:
    """Read a whole file. Raises `ConfigError` that names the flag and the file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{flag} {path} cannot be read: {error.strerror}") from error
