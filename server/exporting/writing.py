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
from server.models.repository import CONFIG_FILE, LABELS_FILE, Repository

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
        ExportError: it exists and `force` is off, or it is no positive number.
    """
    if wanted is None:
        return max(_taken_versions(root / name), default=0) + 1
    if wanted < 1 or wanted >= 10**18:
        raise ExportError(f"--version must be a positive integer, got {wanted}")
    if (root / name / str(wanted)).exists() and not force:
        raise ExportError(
            f"{name} version {wanted} exists in {root}: give --force to overwrite it, or leave --version out "
            f"to write version {max(_taken_versions(root / name)) + 1}"
        )
    return wanted


def _taken_versions(model: Path) -> list[int]:
    """Return every number in use, complete version or not."""
    names = [path.name for path in model.iterdir()] if model.is_dir() else []
    return [int(name) for name in names if name.isascii() and name.isdigit() and not name.startswith("0")]


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
        _settle(model, others, CONFIG_FILE, config)
        _settle(model, others, LABELS_FILE, labels)
        _sync(staged)
        _swap_in(staged, model / str(version))
    except OSError as error:
        raise ExportError(f"{name} version {version} cannot be written to {root}: {error}") from error


def _settle(model: Path, others: list[int], file: str, text: str | None) -> None:
    path = model / file
    old = path.read_text(encoding="utf-8") if path.exists() else None
    if old == text:
        return
    for version in others:
        own = model / str(version) / file
        if not own.exists():
            _write(own, old or "")
    if text is None:
        path.unlink()
    else:
        _write(path, text)


def _write(path: Path, text: str) -> None:
    """Replace a file so that a reader sees the old text or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


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
