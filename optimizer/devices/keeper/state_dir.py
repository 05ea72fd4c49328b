"""The places on disk that make a keeper the only one: its state directory, its locks, its socket."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optimizer.devices.gpu import DeviceError

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_BACKLOG = 64


class KeeperError(DeviceError):
    """The keeper cannot start as it was told to."""


class KeeperRunning(KeeperError):
    """Another keeper has the state directory or the socket."""


def prepare_state_dir(directory: Path) -> None:
    """Make the directory for markers, for its owner alone; check one that exists.

    Whoever could write there, or replace it, could have root set clocks and power limits. Raises KeeperError.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(directory)
        _check_parent(directory.resolve().parent, "state directory")
    except OSError as error:
        raise KeeperError(f"state directory {directory}: {error.strerror}") from error


def _check_private(directory: Path) -> None:
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise KeeperError(f"state directory {directory} is no directory (links are not followed)")
    if found.st_uid != os.geteuid() or found.st_mode & _OTHERS_MAY_WRITE:
        raise KeeperError(
            f"state directory {directory} belongs to uid {found.st_uid} with mode {_mode(found)}; it has to "
            f"belong to uid {os.geteuid()} and nobody else may write there: chown and chmod 0700 it"
        )


def _check_parent(directory: Path, what: str) -> None:
    found = directory.stat()
    sticky = found.st_mode & stat.S_ISVTX
    if found.st_uid not in (0, os.geteuid()) or (found.st_mode & _OTHERS_MAY_WRITE and not sticky):
        raise KeeperError(
            f"{directory} belongs to uid {found.st_uid} with mode {_mode(found)}: others could replace the "
            f"{what} in it; choose another place, or let only its owner, root, write there"
        )


def _mode(found: os.stat_result) -> str:
    return f"{stat.S_IMODE(found.st_mode):04o}"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock, which the kernel takes back when the process ends, however it ends.

    Raises KeeperError when another keeper has it.
    """
    descriptor = _lock(path)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise KeeperError(f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise KeeperRunning(
            f"another keeper is running: it has locked {path}; stop it, or give this one another --socket "
            "and --state-dir"
        ) from None
    return descriptor


def listen(path: Path, group: int | None) -> socket.socket:
    """Listen on a Unix socket that its owner and a group may open. What an earlier keeper left is replaced.

    Only whoever holds the socket's lock may call this. Raises KeeperError.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _check_parent(path.resolve().parent, "socket")
        _remove_stale(path)
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        if group is not None and group != os.getegid():
            os.chown(path, -1, group)
        path.chmod(0o660)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise KeeperError(f"socket {path}: {error.strerror}") from error
    except KeeperError:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise KeeperError(f"socket {path}: there is a file that is no socket; remove it, or choose another")
    path.unlink()
