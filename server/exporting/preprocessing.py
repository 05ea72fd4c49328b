"""From pixels to what a network was trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.errors import ExportError


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """A network's input is `(pixel * scale - mean) / std`, channel by channel, for pixels of 0..255.

    Args:
        scale: factor on the pixel, usually 1/255 or 1.
        mean: one value for all channels, or one a channel, in the units after scaling.
        std: likewise.
    """

    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale) or self.scale <= 0:
            raise ExportError(f"--scale must be a positive number, got {self.scale}")
        if not all(map(math.isfinite, self.mean)):
            raise ExportError(f"--mean must hold finite numbers, got {self.mean}")
        if not all(math.isfinite(value) and value > 0 for value in self.std):
            raise ExportError(f"--std must hold positive numbers, got {self.std}")
        with np.errstate(all="ignore"):
            usable = np.isfinite(self.shift).all() and np.isfinite(self.gain).all() and self.gain.all()
        if not usable:
            raise ExportError(
                f"--scale {self.scale:g}, --mean {_joined(self.mean)} and --std {_joined(self.std)} "
                "leave what float32 can hold"
            )

    def check_channels(self, channels: int) -> None:
        """Raise `ExportError` unless mean and std fit a picture of `channels` channels."""
        for flag, values in (("--mean", self.mean), ("--std", self.std)):
            if len(values) not in (1, channels):
                raise ExportError(
                    f"{flag} has {len(values)} values, but the network's input has {channels} channels: "
                    f"give one value, or {channels}"
                )

    @property
    def shift(self) -> NDArray[np.float32]:
        """What to subtract from a pixel, `[1]` or `[channels]`."""
        return np.array([value / self.scale for value in self.mean], dtype=np.float32)

    @property
    def gain(self) -> NDArray[np.float32]:
        """What to multiply the difference by, `[1]` or `[channels]`."""
        return np.array([self.scale / value for value in self.std], dtype=np.float32)

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn `[n, height, width, channels]` into FP32 `[n, channels, height, width]` as in training."""
        mean, std = np.array(self.mean, dtype=np.float32), np.array(self.std, dtype=np.float32)
        scaled = (pixels.astype(np.float32) * np.float32(self.scale) - mean) / std
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)

    def __str__(self) -> str:
        """Read as a formula, e.g. `(pixel - 127) / 128`."""
        pixel = "pixel" if self.scale == 1 else f"pixel / {1 / self.scale:g}"
        return f"({pixel} - {_joined(self.mean)}) / {_joined(self.std)}"


def _joined(values: tuple[float, ...]) -> str:
    shown = ", ".join(f"{value:g}" for value in values)
    return shown if len(values) == 1 else f"[{shown}]"
