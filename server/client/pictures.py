"""From files to requests: pictures as they are where the server decodes them, as pixels where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from grpc import StatusCode

from protos import grpc_service_pb2 as pb
from server.client.client import Classification, OipClient, RemoteModel, RemoteTensor, classification_request
from server.client.endpoint import ServerRefused
from server.engines.engine import NUMPY_DTYPES, Array
from server.errors import ConfigError, InvalidArgument
from server.files import read_file
from server.images import decode_image
from server.models.repository import ImageInput
from server.wire.tensors import pack_bytes

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_USUAL_MARGIN = 8 / 7  # the shorter side before the crop is usually 256 where the crop is 224


@dataclass(frozen=True, slots=True)
class Picture:
    """One file, JPEG or PNG."""

    path: Path
    encoded: bytes


@dataclass(frozen=True, slots=True)
class Pixels:
    """How a picture becomes numbers when the server does not do it.

    Args:
        resize: pixels of the shorter side before the centre is cut out; None: 8/7 of the cut.
        scale: floating-point models take (pixel * scale - mean) / std; None: not told.
        mean: one number, or one a channel.
        std: likewise.
    """

    resize: int | None = None
    scale: float | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


def read_picture(path: Path) -> Picture:
    """Read a file. Raises `ConfigError` when it cannot be read or is neither JPEG nor PNG."""
    encoded = read_file(path, "IMAGE")
    if not encoded.startswith(_MAGIC):
        raise ConfigError(f"{path} is neither a JPEG nor a PNG file")
    return Picture(path, encoded)


class PictureSender:
    """Sends batches of pictures; finds out with the first whether the server decodes them.

    The protocol has no way to ask: Boulton takes BYTES for inputs that its metadata shows as UINT8.
    """

    def __init__(
        self, client: OipClient, model: RemoteModel, output: RemoteTensor, k: int, pixels: Pixels
    ) -> None:
        self._client = client
        self._model = model
        self._output = output
        self._k = k
        self._pixels = pixels
        self._encoded = model.only_input.datatype in ("UINT8", "BYTES")

    def send(self, batch: Sequence[Picture]) -> Classification:
        """Classify a batch. Raises `ServerRefused`, `ServerUnreachable`, `ConfigError`."""
        if self._encoded:
            try:
                return self._client.classify(self._encoded_request(batch), len(batch))
            except ServerRefused as error:
                if (
                    self._model.only_input.datatype == "BYTES"
                    or error.code is not StatusCode.INVALID_ARGUMENT
                ):
                    raise
                self._encoded = False
        return self._client.classify(self._pixel_request(batch), len(batch))

    def _encoded_request(self, batch: Sequence[Picture]) -> pb.ModelInferRequest:
        raw = pack_bytes([picture.encoded for picture in batch])
        return self._request("BYTES", (len(batch),), raw)

    def _pixel_request(self, batch: Sequence[Picture]) -> pb.ModelInferRequest:
        tensor = self._model.only_input
        array = np.stack([to_pixels(picture, tensor, self._pixels) for picture in batch])
        shape = array.shape if self._model.max_batch else array.shape[1:]
        return self._request(tensor.datatype, shape, array.tobytes())

    def _request(self, datatype: str, shape: Sequence[int], raw: bytes) -> pb.ModelInferRequest:
        return classification_request(self._model, self._output, datatype, shape, raw, self._k)


def to_pixels(picture: Picture, tensor: RemoteTensor, pixels: Pixels) -> Array:
    """Decode, resize, cut the centre and normalise: one item of the tensor. Raises `ConfigError`."""
    height, width, channels_first = _layout(tensor)
    resize = pixels.resize or round(min(height, width) * _USUAL_MARGIN)
    try:
        decoded = decode_image(picture.encoded, ImageInput(tensor.name, height, width, resize))
    except InvalidArgument as error:
        raise ConfigError(f"{picture.path}: {error}") from error
    array = decoded if tensor.datatype == "UINT8" else _normalised(decoded, tensor, pixels)
    return np.ascontiguousarray(array.transpose(2, 0, 1) if channels_first else array)


def _layout(tensor: RemoteTensor) -> tuple[int, int, bool]:
    """Height, width, and whether channels come first."""
    shape = tensor.shape
    if len(shape) == 3 and min(shape) > 0 and 3 in (shape[0], shape[2]):
        return (shape[0], shape[1], False) if shape[2] == 3 else (shape[1], shape[2], True)
    raise ConfigError(
        f"input '{tensor.name}' has the shape {list(shape)} an item; a colour picture fills "
        "[height, width, 3] or [3, height, width]"
    )


def _normalised(decoded: Array, tensor: RemoteTensor, pixels: Pixels) -> Array:
    if tensor.datatype not in ("FP16", "FP32", "FP64"):
        raise ConfigError(
            f"input '{tensor.name}' is {tensor.datatype}; pictures fill UINT8, FP16, FP32 or FP64"
        )
    if pixels.scale is None:
        raise ConfigError(
            f"input '{tensor.name}' is {tensor.datatype} and only its maker knows how it wants pixels: give "
            "--scale, --mean and --std for (pixel * scale - mean) / std, or export it with `--input uint8`"
        )
    values = (decoded.astype(np.float64) * pixels.scale - np.array(pixels.mean)) / np.array(pixels.std)
    normalised: Array = values.astype(NUMPY_DTYPES[tensor.datatype])
    return normalised
