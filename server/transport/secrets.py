"""What an operator should know about the files that prove who the server is and who may use it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from server.config import Settings
from server.transport.ports import client_port
from server.transport.tls import date_warning


def secrets_warnings(settings: Settings) -> Iterator[str]:
    """Say which secrets every user can read, and whether clients will refuse the certificate."""
    secrets = {
        "--tls-key": settings.tls_key,
        "--token-file": settings.token_file,
        "--operator-token-file": settings.operator_token_file,
    }
    for flag, path in secrets.items():
        if path is not None and _is_open_to_all(path):
            yield f"{flag} {path} can be read by every user of this machine: chmod o-r it"
    files = client_port(settings).tls
    warning = date_warning(files) if files is not None else None
    if warning is not None:
        yield warning


def _is_open_to_all(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:  # gone since it was read
        return False
