"""The files beside a network: config.toml and labels.txt, read with limits and checked key by key."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from server.errors import RepositoryError

_MAX_CONFIG_BYTES = 1 << 20
_MAX_LABELS_BYTES = 16 << 20
MAX_RESIZE = 1 << 14
MAX_BATCH = (1 << 31) - 1
_MAX_PRECISION = 16


@dataclass(frozen=True, slots=True)
class EntryConfig:
    """What config.toml may say; None: it does not.

    Args:
        max_batch: `max_batch_size`, the largest batch in images.
        image_input: `[image] input`, the UINT8 input that encoded pictures fill.
        resize: `[image] resize`, pixels of the shorter side before the centre crop.
        precision: `[export] precision`, what the network computes in: fp32, fp16, int8.
    """

    max_batch: int | None = None
    image_input: str | None = None
    resize: int | None = None
    precision: str | None = None


def read_config(path: Path | None) -> EntryConfig:
    """Read config.toml if there is one. Raises `RepositoryError` naming the file and the key at fault."""
    if path is None:
        return EntryConfig()
    where = f"{path.parent.name}/{path.name}"
    try:
        table = tomllib.loads(_read_text(path, _MAX_CONFIG_BYTES))
    except (ValueError, RecursionError) as error:  # ValueError itself for numbers of thousands of digits
        raise RepositoryError(f"{where} is not valid TOML: {error or 'nested too deeply'}") from error
    _check_keys(table, ("max_batch_size", "image", "export"), where)
    image = _table(table, "image", where)
    _check_keys(image, ("input", "resize"), f"{where} [image]")
    export = _table(table, "export", where)
    return EntryConfig(
        max_batch=_positive(table, "max_batch_size", where, MAX_BATCH),
        image_input=_image_name(image, where) if "image" in table else None,
        resize=_positive(image, "resize", f"{where} [image]", MAX_RESIZE),
        precision=_precision(export, where),
    )


def _check_keys(table: dict[str, object], allowed: tuple[str, ...], where: str) -> None:
    unknown = sorted(set(table) - set(allowed))
    if unknown:
        raise RepositoryError(f"{where}: unknown key {unknown[0]!r}; allowed are {', '.join(allowed)}")


def _table(table: dict[str, object], key: str, where: str) -> dict[str, object]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise RepositoryError(f"{where}: {key} must be a table [{key}], got {value!r}")
    return value


def _image_name(image: dict[str, object], where: str) -> str:
    name = image.get("input")
    if not isinstance(name, str):
        raise RepositoryError(f"{where} [image]: input must name the network's image input, got {name!r}")
    return name


def _precision(export: dict[str, object], where: str) -> str | None:
    precision = export.get("precision")
    if precision is None:
        return None
    if not isinstance(precision, str) or not precision.isalnum() or len(precision) > _MAX_PRECISION:
        raise RepositoryError(
            f"{where} [export]: precision must be a word such as fp32, fp16 or int8, got {precision!r}"
        )
    return precision.lower()


def _positive(table: dict[str, object], key: str, where: str, largest: int) -> int | None:
    value = table.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
        raise RepositoryError(f"{where}: {key} must be an integer from 1 to {largest}, got {value!r}")
    return value


def read_labels(path: Path | None) -> tuple[str, ...]:
    """Read labels.txt, class names by index. Raises `RepositoryError` when it is no UTF-8 text."""
    if path is None:
        return ()
    lines = _read_text(path, _MAX_LABELS_BYTES).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return tuple(line.strip() for line in lines)


def _read_text(path: Path, largest: int) -> str:
    """Read UTF-8; editors on Windows put a mark before it, which is left out."""
    where = f"{path.parent.name}/{path.name}"
    try:
        if path.stat().st_size > largest:
            raise RepositoryError(f"{where} is larger than {largest} bytes")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RepositoryError(f"{where} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise RepositoryError(f"{where} cannot be read: {error.strerror}") from error
