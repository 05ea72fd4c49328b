"""Encoded photographs to pixels: what a client sends as JPEG or PNG becomes one slot of a UINT8 batch.

Bytes come from strangers. Only the two formats are tried, and limits are checked on the header before any
pixel is decoded. Everything here is local to one call, so any number of threads may decode at once.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server.errors import InvalidArgument
from server.models.repository import ImageInput

_FORMATS = ("JPEG", "PNG")
_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A JPEG may be decoded at 1/2, 1/4 or 1/8 size almost for free. Twice the wanted size is kept, so that the
# bicubic filter still decides what the pixels look like.
_DRAFT_MARGIN = 2


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a picture may cost before it is refused.

    Args:
        pixels: width times height. The default admits the 50-megapixel pictures of telephones and holds one
            decoding to about 200 MB.
        jpeg_scans: passes over the picture in a progressive JPEG; encoders make about ten.
    """

    pixels: int = 50_000_000
    jpeg_scans: int = 100


def decode_image(encoded: bytes, image: ImageInput, limits: ImageLimits = ImageLimits()) -> NDArray[np.uint8]:
    """Decode one JPEG or PNG and fit it to the model's input.

    The picture is turned upright (EXIF), transparency is laid on white, the shorter side is scaled to
    `image.resize` pixels (bicubic) and the centre is cut out. A crop larger than that enlarges the picture.

    Returns:
        Pixels `[image.height, image.width, 3]`, RGB.

    Raises:
        InvalidArgument: not a JPEG or PNG, damaged, cut short, or over `limits`.
    """
    picture = _open(encoded, limits)
    orientation = _orientation(picture)
    height, width = (image.width, image.height) if orientation >= 5 else (image.height, image.width)
    try:
        _draft(picture, height, width, image.resize)
        pixels = _opaque(centre_crop(_plain(picture), height, width, image.resize))
    except Exception as error:  # a dozen types, all of which mean damaged data here
        reason = str(error) or type(error).__name__
        raise InvalidArgument(f"the {picture.format} image is damaged or cut short: {reason}") from error
    upright = pixels.transpose(_TURNS[orientation]) if orientation in _TURNS else pixels
    return np.array(upright, dtype=np.uint8)


def _open(encoded: bytes, limits: ImageLimits) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(encoded), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise InvalidArgument(
            f"the image is too large to decode: at most {limits.pixels} pixels are allowed"
        ) from error
    except Exception as error:  # as above: unknown format, damaged header
        raise InvalidArgument(
            f"{len(encoded)} bytes are not an image that can be read: send one JPEG or PNG file per element"
        ) from error
    _check_limits(picture, encoded, limits)
    return picture


def _check_limits(picture: Image.Image, encoded: bytes, limits: ImageLimits) -> None:
    width, height = picture.size
    if width * height > limits.pixels:
        raise InvalidArgument(
            f"the image has {width} x {height} = {width * height} pixels: at most {limits.pixels} are decoded"
        )
    # Inside entropy-coded data 0xFF is always followed by 0x00, so these two bytes are scan headers.
    scans = encoded.count(b"\xff\xda") if picture.format == "JPEG" else 0
    if scans > limits.jpeg_scans:
        raise InvalidArgument(f"the JPEG image has {scans} scans: at most {limits.jpeg_scans} are decoded")


def _orientation(picture: Image.Image) -> int:
    try:
        value = picture.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001, RUF100 - a broken EXIF block does not make the picture unreadable
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def centre_crop(picture: Image.Image, height: int, width: int, resize: int = 1) -> Image.Image:
    """Scale the shorter side to `resize` (more if the crop needs it) and cut the centre, `height` by `width`.

    One pass: only the part that survives the crop is resampled, so a panorama costs no more than a square.
    """
    scale = _scale(picture.size, height, width, resize)
    half_width, half_height = width / scale / 2, height / scale / 2
    x, y = picture.width / 2, picture.height / 2
    box = (
        max(0.0, x - half_width),
        max(0.0, y - half_height),
        min(picture.width, x + half_width),
        min(picture.height, y + half_height),
    )
    return picture.resize((width, height), Image.Resampling.BICUBIC, box=box)


def _draft(picture: Image.Image, height: int, width: int, resize: int) -> None:
    """Let the JPEG decoder leave out detail that scaling would throw away; other formats are untouched."""
    scale = _scale(picture.size, height, width, resize) * _DRAFT_MARGIN
    picture.draft(None, (int(picture.width * scale), int(picture.height * scale)))


def _scale(size: tuple[int, int], height: int, width: int, resize: int) -> float:
    return max(resize / min(size), width / size[0], height / size[1])


def _plain(picture: Image.Image) -> Image.Image:
    """Return the picture in a mode whose values can be interpolated: L, LA, RGB, RGBA or CMYK."""
    if picture.mode.startswith("I"):  # 16-bit greyscale: Pillow's own conversion would clip at 255
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("P", "PA") or "transparency" in picture.info:
        return picture.convert("RGBA")
    return picture.convert("L") if picture.mode == "1" else picture


def _opaque(picture: Image.Image) -> Image.Image:
    if picture.mode not in ("RGBA", "LA"):
        return picture.convert("RGB")
    colour = picture.convert("RGBA")
    page = Image.new("RGB", colour.size, "white")
    page.paste(colour, mask=colour.getchannel("A"))
    return page
