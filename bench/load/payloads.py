"""Requests as the bytes that go over the wire: made once, sent many times."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from bench.load.plan import MIB, Pictures
from protos import grpc_service_pb2 as pb
from server.client.client import RemoteModel, RemoteTensor
from server.client.pictures import Picture, Pixels, read_picture, to_pixels
from server.engines.engine import NUMPY_DTYPES, Array
from server.errors import ConfigError
from server.wire.tensors import pack_bytes

VARIANTS = 16  # different requests of one size, so that no cache on the way answers them
BUDGET_BYTES = 256 * MIB
_REGION_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class WireTensor:
    """One input tensor as it is sent: raw bytes with their datatype and shape."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes


class Payloads:
    """The requests of each size, handed out in turns."""

    def __init__(self, messages: dict[int, tuple[bytes, ...]]) -> None:
        self._turns = {images: itertools.cycle(each) for images, each in messages.items()}
        self.largest_bytes = max(len(message) for each in messages.values() for message in each)

    def next(self, images: int) -> bytes:
        """Return the next request with so many images."""
        return next(self._turns[images])


def make_requests(
    model: RemoteModel, sizes: Sequence[int], pictures: Pictures, seed: int
) -> dict[int, list[list[WireTensor]]]:
    """Make the tensors of every request: for each size a few variants, each one tensor an input.

    Raises:
        ConfigError: the model's inputs cannot be filled with these pictures.
    """
    fillers = [_filler(model, tensor, pictures, seed) for tensor in model.inputs]
    item_bytes = sum(filler.item_bytes for filler in fillers)
    variants = _variants(sum(sizes) * item_bytes)
    return {
        images: [[filler.tensor(images, model.max_batch) for filler in fillers] for _ in range(variants)]
        for images in sizes
    }


def _variants(bytes_each: int) -> int:
    if bytes_each > BUDGET_BYTES:
        need = bytes_each // MIB
        raise ConfigError(
            f"the requests need {need} MiB, {BUDGET_BYTES // MIB} MiB are allowed; lower --batch"
        )
    return max(1, min(VARIANTS, BUDGET_BYTES // max(1, bytes_each)))


@dataclass(frozen=True, slots=True)
class Filler:
    """Makes tensors for one input from an endless supply of items (raw bytes each)."""

    name: str
    datatype: str
    item_shape: tuple[int, ...]
    item_bytes: int
    items: Iterator[bytes]

    def tensor(self, images: int, max_batch: int) -> WireTensor:
        """Return the tensor for a request of so many images."""
        shape = (images, *self.item_shape) if max_batch or not self.item_shape else self.item_shape
        return WireTensor(self.name, self.datatype, shape, b"".join(itertools.islice(self.items, images)))


def _filler(model: RemoteModel, tensor: RemoteTensor, pictures: Pictures, seed: int) -> Filler:
    if pictures.kind == "files":
        model.only_input  # noqa: B018 - raises unless there is exactly one
        return _file_filler(tensor, pictures)
    if tensor.datatype not in NUMPY_DTYPES:
        raise ConfigError(f"input '{tensor.name}' is {tensor.datatype}; give files with --input FILE...")
    _check_fixed(tensor)
    items = _zeros(tensor) if pictures.kind == "zeros" else _random(tensor, seed)
    item_bytes = int(np.prod(tensor.shape)) * NUMPY_DTYPES[tensor.datatype].itemsize
    return Filler(tensor.name, tensor.datatype, tensor.shape, item_bytes, items)


def _check_fixed(tensor: RemoteTensor) -> None:
    if min(tensor.shape, default=1) <= 0:
        raise ConfigError(
            f"input '{tensor.name}' has the shape {list(tensor.shape)} an item; "
            "dimensions that vary cannot be filled"
        )


def _zeros(tensor: RemoteTensor) -> Iterator[bytes]:
    return itertools.repeat(np.zeros(tensor.shape, NUMPY_DTYPES[tensor.datatype]).tobytes())


def _random(tensor: RemoteTensor, seed: int) -> Iterator[bytes]:
    random = np.random.default_rng(seed)
    dtype = NUMPY_DTYPES[tensor.datatype]
    while True:
        yield _random_item(random, tensor.shape, dtype).tobytes()


def _random_item(random: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    """Floats in [0, 1), booleans, integers over what a pixel may be."""
    if dtype.kind == "f":
        return np.asarray(random.random(shape), dtype)
    top = 2 if dtype.kind == "b" else min(256, np.iinfo(dtype.str).max + 1)
    return np.asarray(random.integers(0, top, shape), dtype)


def _file_filler(tensor: RemoteTensor, pictures: Pictures) -> Filler:
    photos = [read_picture(path) for path in pictures.files]
    if pictures.encoded or tensor.datatype == "BYTES":
        items = [pack_bytes([photo.encoded]) for photo in photos]
        return _cycled(tensor.name, "BYTES", (), items)
    _check_fixed(tensor)
    items = [_decoded(photo, tensor) for photo in photos]
    return _cycled(tensor.name, tensor.datatype, tensor.shape, items)


def _decoded(photo: Picture, tensor: RemoteTensor) -> bytes:
    """Pixels of 0..255 for integers, of 0..1 for floats."""
    return to_pixels(photo, tensor, Pixels(scale=1 / 255)).tobytes()


def _cycled(name: str, datatype: str, shape: tuple[int, ...], items: Sequence[bytes]) -> Filler:
    return Filler(name, datatype, shape, max(map(len, items)), itertools.cycle(items))


def wire_messages(model: str, requests: dict[int, list[list[WireTensor]]]) -> dict[int, tuple[bytes, ...]]:
    """Serialise requests that carry their tensors."""
    return {images: tuple(_inline(model, each) for each in variants) for images, variants in requests.items()}


def _inline(model: str, tensors: Sequence[WireTensor]) -> bytes:
    request = pb.ModelInferRequest(model_name=model)
    for tensor in tensors:
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        request.raw_input_contents.append(tensor.raw)
    return request.SerializeToString()


class SharedRequests:
    """The same requests with their tensors in one region of system shared memory. Close to remove it."""

    def __init__(self, region: str, requests: dict[int, list[list[WireTensor]]]) -> None:
        tensors = [tensor for variants in requests.values() for each in variants for tensor in each]
        self.region = region
        self._requests = requests
        self._memory = SharedMemory(create=True, size=max(1, sum(_aligned(len(t.raw)) for t in tensors)))
        self._offsets = self._fill(tensors)

    @property
    def key(self) -> str:
        """The POSIX name under which the server finds it."""
        return f"/{self._memory.name.lstrip('/')}"

    @property
    def byte_size(self) -> int:
        """Size of the region."""
        return self._memory.size

    def messages(self, model: str) -> dict[int, tuple[bytes, ...]]:
        """Serialise requests that point into the region."""
        return {
            images: tuple(self._pointing(model, each) for each in variants)
            for images, variants in self._requests.items()
        }

    def close(self) -> None:
        """Remove the region; the server keeps its own view until it unregisters."""
        self._memory.close()
        self._memory.unlink()

    def _fill(self, tensors: Sequence[WireTensor]) -> dict[int, int]:
        """Copy every tensor; return offsets by the tensor's identity."""
        offsets, offset = {}, 0
        buffer = self._memory.buf
        assert buffer is not None, "open until closed"  # noqa: S101
        for tensor in tensors:
            buffer[offset : offset + len(tensor.raw)] = tensor.raw
            offsets[id(tensor)] = offset
            offset += _aligned(len(tensor.raw))
        return offsets

    def _pointing(self, model: str, tensors: Sequence[WireTensor]) -> bytes:
        request = pb.ModelInferRequest(model_name=model)
        for tensor in tensors:
            given = request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            given.parameters["shared_memory_region"].string_param = self.region
            given.parameters["shared_memory_byte_size"].int64_param = len(tensor.raw)
            given.parameters["shared_memory_offset"].int64_param = self._offsets[id(tensor)]
        return request.SerializeToString()


def _aligned(size: int) -> int:
    return -(-size // _REGION_ALIGNMENT) * _REGION_ALIGNMENT
