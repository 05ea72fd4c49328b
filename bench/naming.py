"""What networks are called in tables and reports."""

from __future__ import annotations

from pathlib import Path

_ENTRY_FILE = "model.onnx"


def printable(name: str) -> str:
    """Return a name without what a terminal takes for an order, or for the end of a line."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)


def network_name(path: Path) -> str:
    """Return a network's name: its file's; in a repository (NAME/VERSION/model.onnx) its entry's."""
    version = path.absolute().parent
    return version.parent.name if path.name == _ENTRY_FILE and version.name.isdecimal() else path.stem
