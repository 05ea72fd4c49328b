"""Real photographs to try a network on: the ones that scikit-image ships, when it is installed."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Only what lies in scikit-image's wheel: nothing here may reach for the network.
_NAMES = ("chelsea", "coffee", "astronaut", "rocket", "stereo_motorcycle", "retina")


@dataclass(frozen=True, slots=True)
class Photograph:
    """A photograph, RGB `[height, width, 3]`, with the name scikit-image gives it (`chelsea` is a cat)."""

    name: str
    pixels: NDArray[np.uint8]


def load_photographs(names: Sequence[str] = _NAMES) -> tuple[Photograph, ...]:
    """Return the photographs that can be read here; none when scikit-image is not installed.

    Args:
        names: functions of `skimage.data` that read a file of its wheel; grey photographs are made RGB.
    """
    try:
        data = importlib.import_module("skimage.data")
    except ImportError:
        return ()
    found = ((name, _pixels(data, name)) for name in names)
    return tuple(Photograph(name, pixels) for name, pixels in found if pixels is not None)


def _pixels(data: object, name: str) -> NDArray[np.uint8] | None:
    try:
        loaded = getattr(data, name)()
    except Exception:  # noqa: BLE001, RUF100 - a photograph that a version does not ship is one sample fewer
        return None
    first = loaded[0] if isinstance(loaded, tuple) else loaded  # stereo: (left, right, disparity)
    pixels = first if first.ndim == 3 else np.stack([first] * 3, axis=-1)
    return np.ascontiguousarray(pixels, dtype=np.uint8)
