"""Markers on disk: one file a GPU, whole or not there at all, and on the disk before anything is changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optimizer.devices.gpu import DeviceError
from optimizer.devices.keeper.marker import ANYTHING, Marker, decode_marker, encode_marker, is_uuid

_SUFFIX = ".json"


class MarkerFiles:
    """The markers of a state directory.

    Args:
        directory: exists, and nobody but its owner can write there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def uuids(self) -> list[str]:
        """Return the GPUs that have a marker, sorted; raises DeviceError when that cannot be found out."""
        try:
            names = [path.stem for path in self._directory.iterdir() if path.suffix == _SUFFIX]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DeviceError(
                f"the markers in {self._directory} cannot be read: {error.strerror}; run as root"
            ) from error
        return sorted(name for name in names if is_uuid(name))

    def read(self, uuid: str) -> Marker | None:
        """Return a GPU's marker, None where there is none. One that cannot be read stands for any change."""
        try:
            return decode_marker(uuid, self._path(uuid).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return ANYTHING

    def write(self, uuid: str, marker: Marker) -> None:
        """Put a marker in place of what was there; it is on the disk when this returns. Raises OSError."""
        path = self._path(uuid)
        draft = path.with_suffix(".new")
        with draft.open("wb") as file:
            file.write(encode_marker(uuid, marker))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        self._sync()

    def remove(self, uuid: str) -> None:
        """Remove a marker if there is one. Raises OSError."""
        self._path(uuid).unlink(missing_ok=True)
        self._sync()

    def _path(self, uuid: str) -> Path:
        return self._directory / f"{uuid}{_SUFFIX}"

    def _sync(self) -> None:
        with _opened(self._directory) as descriptor:
            os.fsync(descriptor)


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
