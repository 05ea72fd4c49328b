"""Files that only this program writes and only believes when they are whole: a header, a checksum, a payload.

TensorRT runs what is in a plan without checking it, so nothing reaches it that was cut, altered, made for
something else, or could have been written by somebody else.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from server.errors import EngineError

_MAGIC = b"boulton sealed file 1\n"
_HEADER_BYTES_MAX = 1 << 16
_LENGTH_BYTES = 4
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH

Header = Mapping[str, str]


class NotSealed(EngineError):
    """A file that cannot be believed, and why."""


def write_sealed(path: Path, header: Header, payload: bytes) -> None:
    """Write a file in one step, readable by its owner only; the directory is made if missing.

    Raises:
        EngineError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, _MAGIC + _encoded(header, payload) + payload)
    except OSError as error:
        raise EngineError(f"{path} cannot be written: {error.strerror}") from error


def read_sealed(path: Path, header: Header) -> bytes:
    """Return the payload of a file with exactly this header.

    Raises:
        FileNotFoundError: there is none.
        NotSealed: it is cut, damaged or foreign, others may write to it, or it cannot be read.
    """
    try:
        content = _read_own(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NotSealed(f"{path} cannot be read: {error.strerror}") from error
    found, payload = _opened(path, content)
    differing = sorted(name for name in {*found, *header} if found.get(name) != header.get(name))
    if differing:
        name = differing[0]
        raise NotSealed(f"{path} was made for {name} {found.get(name)!r}, not {header.get(name)!r}")
    return payload


def _encoded(header: Header, payload: bytes) -> bytes:
    sealed = {"header": dict(header), "bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
    text = json.dumps(sealed, sort_keys=True).encode()
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def _replace(path: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _read_own(path: Path) -> bytes:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid not in (os.geteuid(), 0) or status.st_mode & _WRITABLE_BY_OTHERS:
            raise NotSealed(
                f"{path} can be written by others (owner {status.st_uid}, mode "
                f"{stat.S_IMODE(status.st_mode):03o}): delete it, or make it your own with mode 600"
            )
        return file.read()


def _opened(path: Path, content: bytes) -> tuple[dict[str, str], bytes]:
    if not content.startswith(_MAGIC):
        raise NotSealed(f"{path} was not written by Boulton")
    begin = len(_MAGIC) + _LENGTH_BYTES
    length = int.from_bytes(content[len(_MAGIC) : begin], "little")
    payload = content[begin + length :]
    try:
        if length > _HEADER_BYTES_MAX:
            raise ValueError
        sealed = json.loads(content[begin : begin + length])
        header, size, digest = dict(sealed["header"]), int(sealed["bytes"]), str(sealed["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise NotSealed(f"{path} is damaged: its header cannot be read") from error
    if len(payload) != size:
        raise NotSealed(f"{path} is cut: it holds {len(payload)} of {size} bytes")
    if hashlib.sha256(payload).hexdigest() != digest:
        raise NotSealed(f"{path} is damaged: its checksum does not match")
    return header, payload
