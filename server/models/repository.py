"""The model repository: which models and versions lie on disk, checked before anything loads them.

    <root>/<model>/config.toml            optional settings
    <root>/<model>/labels.txt             optional class names, one a line
    <root>/<model>/<version>/model.onnx   versions are 1, 2, 3, ...; the highest is served by default

A version that differs from its siblings may hold a config.toml or labels.txt of its own, which then replaces
the model's. Nothing is cached: every call reads what is there now.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from server.errors import InvalidArgument, NotFound, RepositoryError
from server.models.repository_files import EntryConfig, read_config, read_labels
from server.onnx_graph import datatype_of, describe, graph_inputs, read_header, shape_of

MODEL_FILE = "model.onnx"
CONFIG_FILE = "config.toml"
LABELS_FILE = "labels.txt"

_VERSION = re.compile(r"[1-9][0-9]{0,17}")  # fits the protocol's int64; 01, +1 and 1x are not versions
_MAX_NAME_BYTES = 255


@dataclass(frozen=True, slots=True)
class ImageInput:
    """How an encoded JPEG or PNG becomes the model's only image input, UINT8 `[batch, height, width, 3]`.

    Args:
        input_name: the tensor that the picture fills.
        height: rows of the network's input.
        width: columns of the network's input.
        resize: the shorter side is scaled to this many pixels (bicubic) before the centre crop.
    """

    input_name: str
    height: int
    width: int
    resize: int


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One version of one model on disk, checked.

    Args:
        name: the model's name.
        version: the positive version.
        onnx_path: the network, inside the repository.
        labels: class names by index; empty when there are none.
        max_batch: largest batch in images that the operator allows; None: whatever the engine allows.
        image: present when clients may send encoded pictures.
        precision: what the network computes in, as `boulton export` recorded it; None: nobody said.
    """

    name: str
    version: int
    onnx_path: Path
    labels: tuple[str, ...]
    max_batch: int | None
    image: ImageInput | None
    precision: str | None = None


def check_model_name(name: str) -> str:
    """Return `name` if it can only ever mean a directory directly inside the repository.

    Raises:
        InvalidArgument: separators, NUL, control characters, a leading dot, empty, or over 255 bytes.
    """
    fault = _name_fault(name)
    if fault:
        raise InvalidArgument(
            f"model name {_shown(name)} {fault}; allowed is a plain name such as 'efficientnet-lite0'"
        )
    return name


def is_version(name: str) -> bool:
    """Whether a directory of that name is a version of its model."""
    return _VERSION.fullmatch(name) is not None


def _name_fault(name: str) -> str:
    if not name:
        return "is empty"
    if not name.isprintable():
        return "holds a control character"
    if "/" in name or "\\" in name:
        return "holds a path separator"
    if name.startswith("."):
        return "starts with a dot"
    if len(name.encode()) > _MAX_NAME_BYTES:
        return f"is longer than {_MAX_NAME_BYTES} bytes"
    return ""


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 64 else name[:61] + "...")


class Repository:
    """Reads the repository at `root`. Thread-safe, since it holds nothing but the path."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def root(self) -> Path:
        """The directory that holds the models."""
        return self._root

    def index(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Return every model that has a version, by name, with its versions ascending.

        Raises:
            RepositoryError: the repository itself cannot be read.
        """
        models = ((name, self._versions(self._root / name)) for name in self._names())
        return tuple((name, versions) for name, versions in models if versions)

    def entry(self, name: str, version: int | None = None) -> ModelEntry:
        """Return one version of a model, the newest when `version` is None.

        Raises:
            InvalidArgument: the name could mean something outside the repository.
            NotFound: there is no such model or version.
            RepositoryError: it is there, but cannot be served.
        """
        chosen = self._choose(check_model_name(name), version)
        directory = self._root / name / str(chosen)
        onnx_path = self._inside(directory / MODEL_FILE)
        config = read_config(self._setting(directory, CONFIG_FILE))
        return ModelEntry(
            name=name,
            version=chosen,
            onnx_path=onnx_path,
            labels=read_labels(self._setting(directory, LABELS_FILE)),
            max_batch=config.max_batch,
            image=_image_input(config, onnx_path),
            precision=config.precision,
        )

    def _names(self) -> list[str]:
        try:
            found = (path for path in self._root.iterdir() if not _name_fault(path.name))
            return sorted(path.name for path in found if path.is_dir())
        except OSError as error:
            raise RepositoryError(
                f"model repository {self._root} cannot be read ({error.strerror}); `boulton export` makes one"
            ) from error

    def _versions(self, model: Path) -> tuple[int, ...]:
        try:
            found = [path for path in model.iterdir() if is_version(path.name)]
            return tuple(sorted(int(path.name) for path in found if self._served_file(path / MODEL_FILE)))
        except OSError:
            return ()  # unreadable or gone meanwhile: one broken model must not hide the others

    def _served_file(self, path: Path) -> bool:
        return path.is_file() and path.resolve().is_relative_to(self._root.resolve())

    def _choose(self, name: str, version: int | None) -> int:
        self._inside(self._root / name, missing_ok=True)
        versions = self._versions(self._root / name)
        if version is None and versions:
            return versions[-1]
        if version in versions:
            return version
        if version is not None and is_version(str(version)):
            self._inside(self._root / name / str(version) / MODEL_FILE, missing_ok=True)
        wanted = "" if version is None or not versions else f" version {version}"
        raise NotFound(f"Request for unknown model: '{name}'{wanted} is not found")

    def _setting(self, directory: Path, file: str) -> Path | None:
        for path in (directory / file, directory.parent / file):
            if path.is_symlink() or path.exists():
                return self._inside(path)
        return None

    def _inside(self, path: Path, *, missing_ok: bool = False) -> Path:
        """Return the real path, refusing links that lead out and things that are no files."""
        try:
            real = path.resolve(strict=not missing_ok)
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
            raise RepositoryError(f"{self._local(path)} cannot be read: {error}") from error
        if not real.is_relative_to(self._root.resolve()):
            raise RepositoryError(
                f"{self._local(path)} leads out of the model repository; copy the file into it"
            )
        if not missing_ok and not real.is_file():
            raise RepositoryError(f"{self._local(path)} is not a regular file")
        if not missing_ok and not os.access(real, os.R_OK):
            raise RepositoryError(f"{self._local(path)} cannot be read by the server's user")
        return real

    def _local(self, path: Path) -> str:
        return str(path.relative_to(self._root))


def _image_input(config: EntryConfig, onnx_path: Path) -> ImageInput | None:
    """Match [image] with the graph, which alone knows the height and width."""
    if config.image_input is None:
        return None
    where = f"{onnx_path.parent.parent.name}/{onnx_path.parent.name}/{MODEL_FILE}"
    try:
        inputs = graph_inputs(read_header(onnx_path))
    except Exception as error:  # protobuf and onnx raise several unrelated types for a damaged file
        raise RepositoryError(f"{where} is not a readable ONNX file: {error}") from error
    value = inputs[0] if len(inputs) == 1 else None
    shape = None if value is None else shape_of(value)
    if value is None or value.name != config.image_input or datatype_of(value) != "UINT8" or not shape:
        raise _no_image_input(config.image_input, where, "; ".join(map(describe, inputs)))
    match shape[1:]:
        case (int(height), int(width), 3):
            return ImageInput(value.name, height, width, config.resize or min(height, width))
    raise _no_image_input(config.image_input, where, describe(value))


def _no_image_input(name: str, where: str, found: str) -> RepositoryError:
    return RepositoryError(
        f"[image] input = {name!r} needs {where} to have that one input, UINT8 [batch, height, width, 3]; "
        f"it has {found or 'no input'}. Export with --input uint8, or take [image] out of config.toml"
    )
