"""Putting a finished version into the repository in one step, leaving its older siblings as they were."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from server.errors import ExportError
from server.files import write_whole
from server.models.repository import CONFIG_FILE, LABELS_FILE, Repository, is_version

ConfigTable = Mapping[str, str | int | float]


@contextmanager
def staging(root: Path) -> Iterator[Path]:
    """Make a directory inside the repository that readers ignore, and remove it however the block ends."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(prefix=".export-", dir=root))
    except OSError as error:
        raise ExportError(f"the model repository {root} cannot be written: {error.strerror}") from error
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def choose_version(root: Path, name: str, wanted: int | None, *, force: bool) -> int:
    """Return the version to write: `wanted`, or the next free one.

    Raises:
        ExportError: it exists and `force` is off, or it is no positive number, or none is left.
    """
    if wanted is None:
        free = _next_version(root / name)
        if not is_version(str(free)):
            raise ExportError(f"{name} has no version left after {free - 1}: choose one with --version")
        return free
    if not is_version(str(wanted)):
        raise ExportError(f"--version must be a positive integer of at most 18 digits, got {wanted}")
    if (root / name / str(wanted)).exists() and not force:
        raise ExportError(
            f"{name} version {wanted} exists in {root}: give --force to overwrite it, or leave --version out "
            f"to write version {_next_version(root / name)}"
        )
    return wanted


def _next_version(model: Path) -> int:
    return max(_taken_versions(model), default=0) + 1


def _taken_versions(model: Path) -> list[int]:
    """Return every number in use, complete version or not."""
    names = [path.name for path in model.iterdir()] if model.is_dir() else []
    return [int(name) for name in names if is_version(name)]


def place(staged: Path, root: Path, name: str, version: int, config: str, labels: str | None) -> None:
    """Move the directory `staged` to `<root>/<name>/<version>` with the model's config.toml and labels.txt.

    Versions that relied on the model's old settings get a copy of their own first, so that no reader sees a
    version with the settings of another. The new version appears last, whole.

    Raises:
        ExportError: the file system refused; what was there is still there.
    """
    try:
        model = root / name
        model.mkdir(exist_ok=True)
        others = [v for v in dict(Repository(root).index()).get(name, ()) if v != version]
        _sync(staged)
        with _put_back(model / CONFIG_FILE, model / LABELS_FILE):
            _settle(model, others, CONFIG_FILE, config)
            _settle(model, others, LABELS_FILE, labels)
            _swap_in(staged, model / str(version))
    except OSError as error:
        raise ExportError(f"{name} version {version} cannot be written to {root}: {error}") from error


@contextmanager
def _put_back(*paths: Path) -> Iterator[None]:
    """Leave files as they were when the block fails: the version that stays is read with them."""
    before = [(path, _content(path)) for path in paths]
    try:
        yield
    except OSError:
        for path, content in before:
            _put(path, content)
        raise


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _put(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
    else:
        write_whole(path, content)


def _settle(model: Path, others: list[int], file: str, text: str | None) -> None:
    path = model / file
    old = _content(path)  # in whatever encoding somebody wrote it
    new = None if text is None else text.encode()
    if old == new:
        return
    for version in others:
        own = model / str(version) / file
        if not own.exists():
            write_whole(own, old or b"")
    _put(path, new)


def _sync(directory: Path) -> None:
    for path in directory.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _swap_in(staged: Path, target: Path) -> None:
    retired = staged.with_name("retired")
    if target.exists():
        target.rename(retired)
    try:
        staged.rename(target)
    except OSError:
        if retired.exists():
            retired.rename(target)
        raise


def toml(tables: Mapping[str, ConfigTable]) -> str:
    """Write TOML: the table named `` holds the keys at the top; empty tables are left out."""
    parts = []
    for name, table in tables.items():
        lines = [f"{key} = {_toml_value(value)}" for key, value in table.items()]
        if lines:
            parts.append("\n".join([f"[{name}]", *lines] if name else lines))
    return "\n\n".join(parts) + "\n"


def _toml_value(value: str | float) -> str:
    if not isinstance(value, str):
        return str(value)
    # JSON strings are TOML strings but for lone surrogates (from odd file names) and DEL.
    clean = value.encode("utf-8", "replace").decode("utf-8").replace("\x7f", "?")
    return json.dumps(clean, ensure_ascii=False)
