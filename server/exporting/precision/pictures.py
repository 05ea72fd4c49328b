"""The pictures that INT8 is calibrated on, and others that every precision is judged on.

No picture is used for both. One's own pictures are decoded as the server decodes them, and mirrored.
scikit-image's photographs are few, so each gives several views: the centre, then crops at random places and
sizes, every other one mirrored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server.errors import ExportError, InvalidArgument
from server.images import centre_crop, decode_image
from server.models.repository import ImageInput
from server.photographs import Photograph, load_photographs

LEAST_PICTURES = 16
"""Fewest pictures of one's own."""

_JUDGED = ("chelsea", "coffee", "rocket", "camera", "moon", "retina", "gravel")
_CALIBRATING = (
    "astronaut",
    "stereo_motorcycle",
    "coins",
    "clock",
    "brick",
    "grass",
    "hubble_deep_field",
    "immunohistochemistry",
    "cell",
)
_JUDGED_VIEWS = 16
_CALIBRATING_VIEWS = 8
_HELD_BACK = 4  # of one's own pictures, every fourth is judged on
_MOST_PICTURES = 512  # more calibrate no better, and their views would fill the memory
_SMALLEST_CROP = 0.35  # of the shorter side
_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pixels as the server would hand them to the network.

    Args:
        calibrating: UINT8 `[n, height, width, channels]`.
        judged: UINT8 `[m, height, width, channels]`, of other pictures.
        calibrating_origin: where the first are from, for people.
        judged_origin: where the others are from.
    """

    calibrating: NDArray[np.uint8]
    judged: NDArray[np.uint8]
    calibrating_origin: str
    judged_origin: str


def gather(size: tuple[int, int, int], resize: int | None, directory: Path | None) -> Pictures | None:
    """Return views of scikit-image's photographs, or the pictures in `directory` and their mirror images.

    Args:
        size: (channels, height, width) of the network's input.
        resize: pixels of the shorter side before the centre crop; None: what the crop needs.
        directory: holds JPEG and PNG files, searched below as well.

    Returns:
        None when no directory is given and scikit-image is not installed.

    Raises:
        ExportError: the directory holds too few pictures, or one that cannot be read.
    """
    return _of_photographs(size, resize) if directory is None else _of_directory(size, resize, directory)


def _of_directory(size: tuple[int, int, int], resize: int | None, directory: Path) -> Pictures:
    views = np.stack([_decoded(path, size, resize) for path in _paths(directory)])
    held_back = np.arange(len(views)) % _HELD_BACK == 0
    return Pictures(
        _with_mirrored(views[~held_back]),
        _with_mirrored(views[held_back]),
        f"{(~held_back).sum()} pictures in {directory.name}, and mirrored",
        f"{held_back.sum()} other pictures in {directory.name}, and mirrored",
    )


def _with_mirrored(views: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate([views, views[:, :, ::-1]])


def _of_photographs(size: tuple[int, int, int], resize: int | None) -> Pictures | None:
    calibrating, judged = load_photographs(_CALIBRATING), load_photographs(_JUDGED)
    if not calibrating or not judged:
        return None
    return Pictures(
        _views([Image.fromarray(p.pixels) for p in calibrating], size, resize, _CALIBRATING_VIEWS, seed=1),
        _views([Image.fromarray(p.pixels) for p in judged], size, resize, _JUDGED_VIEWS, seed=2),
        f"views of scikit-image's {_names(calibrating)}",
        f"views of scikit-image's {_names(judged)}",
    )


def _names(photographs: Sequence[Photograph]) -> str:
    return ", ".join(photograph.name for photograph in photographs)


def _paths(directory: Path) -> list[Path]:
    if not directory.is_dir():
        raise ExportError(
            f"--calibration {directory} is not a directory: give one that holds JPEG or PNG files"
        )
    paths = sorted(path for path in directory.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if len(paths) < LEAST_PICTURES:
        raise ExportError(
            f"--calibration {directory} holds {len(paths)} JPEG and PNG files; at least {LEAST_PICTURES} are "
            "needed, and some hundred like those that clients will send are better"
        )
    return paths[:: -(-len(paths) // _MOST_PICTURES)]


def _decoded(path: Path, size: tuple[int, int, int], resize: int | None) -> NDArray[np.uint8]:
    """Decode a file by the server's own code: `[height, width, channels]`."""
    channels, height, width = size
    try:
        pixels = decode_image(
            path.read_bytes(), ImageInput("input", height, width, resize or min(height, width))
        )
    except OSError as error:
        raise ExportError(f"--calibration: {path} cannot be read: {error.strerror or error}") from error
    except InvalidArgument as error:
        raise ExportError(f"--calibration: {path}: {error}; take it out, or convert it") from error
    return pixels if channels == 3 else np.asarray(Image.fromarray(pixels).convert("L"))[:, :, np.newaxis]


def _views(
    pictures: Sequence[Image.Image], size: tuple[int, int, int], resize: int | None, count: int, seed: int
) -> NDArray[np.uint8]:
    channels, height, width = size
    rng = np.random.default_rng(seed)
    mode = "RGB" if channels == 3 else "L"
    cut = [
        np.asarray(view)
        for picture in pictures
        for view in _views_of(picture.convert(mode), height, width, resize, count, rng)
    ]
    return np.stack(cut).reshape(len(cut), height, width, channels)


def _views_of(
    picture: Image.Image, height: int, width: int, resize: int | None, count: int, rng: np.random.Generator
) -> list[Image.Image]:
    views = [centre_crop(picture, height, width, resize or 1)]
    largest = min(picture.width / width, picture.height / height)
    while len(views) < count:
        scale = largest * rng.uniform(_SMALLEST_CROP, 1.0)
        x, y = (
            rng.uniform(0.0, picture.width - width * scale),
            rng.uniform(0.0, picture.height - height * scale),
        )
        box = (x, y, x + width * scale, y + height * scale)
        view = picture.resize((width, height), Image.Resampling.BICUBIC, box=box)
        mirrored = len(views) % 2 == 1
        views.append(view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else view)
    return views
