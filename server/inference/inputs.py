"""From a request's bytes to the arrays that the network reads, without copying pixels."""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from server.engines.device_rows import DeviceRows
from server.engines.engine import Array
from server.engines.rows import Rows
from server.errors import InvalidArgument, Unavailable
from server.images import decode_image
from server.inference.plan import InferPlan, InputPlan
from server.models.repository import ImageInput
from server.wire.outside_memory import OutsideRows, RawContents, Tensor
from server.wire.shared_memory import SharedBytes
from server.wire.tensors import RegionSlice, RequestMessage, unpack_bytes


class Regions(Protocol):
    """Shared memory by name."""

    def view(self, slice: RegionSlice) -> SharedBytes | DeviceRows:  # noqa: A002  # the protocol's word
        """Return the bytes of a slice. Raises `RequestError`."""


class ImageDecoder:
    """Decodes images in a bounded pool of threads, so that the event loop never waits for a JPEG.

    Args:
        threads: how many images are decoded at once.
        max_pending: how many images may wait or be decoded; more are refused.
    """

    def __init__(self, threads: int = 2, max_pending: int = 256) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._max_pending = max_pending
        self._pending = 0

    async def decode(self, encoded: tuple[bytes, ...], image: ImageInput) -> Array:
        """Decode images to UINT8 [n, height, width, 3]. Raises `InvalidArgument` or `Unavailable`."""
        count = len(encoded)
        if self._pending + count > self._max_pending:
            raise Unavailable(
                f"{self._pending} images wait to be decoded and {self._max_pending} may: try again",
                retry_after_s=0.1,
            )
        self._pending += count
        try:
            return np.stack(await self._decode_all(encoded, image))
        finally:
            self._pending -= count

    async def _decode_all(self, encoded: tuple[bytes, ...], image: ImageInput) -> list[Array]:
        loop = asyncio.get_running_loop()
        futures = [loop.run_in_executor(self._pool, decode_image, one, image) for one in encoded]
        try:
            return list(await asyncio.gather(*futures))
        finally:
            for future in futures:  # one bad image, or a cancelled request: do not decode the rest
                future.cancel()

    def close(self) -> None:
        """Stop the threads. Idempotent."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class InputReader:
    """Fills a plan with one request's contents."""

    def __init__(self, regions: Regions, decoder: ImageDecoder) -> None:
        self._regions = regions
        self._decoder = decoder

    def read(self, plan: InferPlan, request: RequestMessage) -> tuple[Tensor, ...]:
        """Return one array per input of the network, over the request's own memory where possible.

        None of them may be encoded.
        """
        return tuple([self._array(tensor, request) for tensor in plan.inputs])

    async def read_encoded(
        self, plan: InferPlan, request: RequestMessage, image: ImageInput | None
    ) -> tuple[Tensor, ...]:
        """Do the same where some inputs hold encoded images, which are decoded in other threads."""
        decoded: dict[str, Array] = {}
        for tensor in plan.inputs:
            if tensor.encoded and image is not None:
                array = await self._decoder.decode(self._encoded(tensor, request), image)
                decoded[tensor.spec.name] = array.reshape(tensor.shape)
        # Regions last, when nothing is waited for any more: a client may unregister them meanwhile.
        return tuple(
            [
                decoded[tensor.spec.name] if tensor.spec.name in decoded else self._array(tensor, request)
                for tensor in plan.inputs
            ]
        )

    def _array(self, tensor: InputPlan, request: RequestMessage) -> Tensor:
        typed = tensor.source.typed
        if typed is not None:
            return _shaped(tensor, np.asarray(typed))
        raw = self._raw(tensor, request)
        if raw.nbytes != tensor.nbytes:
            raise _wrong_size(tensor, f"{raw.nbytes} bytes")
        if isinstance(raw, Rows):
            return raw.viewed(tensor.shape, tensor.spec.dtype)
        return np.frombuffer(raw, tensor.spec.dtype).reshape(tensor.shape)

    def _raw(self, tensor: InputPlan, request: RequestMessage) -> RawContents | DeviceRows:
        if tensor.raw_index is not None:
            return request.raw[tensor.raw_index]
        region = tensor.source.region
        if region is None:
            raise InvalidArgument(
                f"input '{tensor.spec.name}' has no contents: send them raw, typed or in shared memory"
            )
        return self._regions.view(region)

    def _encoded(self, tensor: InputPlan, request: RequestMessage) -> tuple[bytes, ...]:
        count = math.prod(tensor.source.shape)
        typed = tensor.source.typed
        if typed is None:
            raw = self._raw(tensor, request)
            if isinstance(raw, DeviceRows):
                raise InvalidArgument(
                    f"input '{tensor.spec.name}' lies in CUDA shared memory, where encoded images cannot be "
                    "decoded: put pixels there, or send the images otherwise"
                )
            # A client may change shared memory while it is read: take the bytes once, then look at them.
            taken = raw.read().data if isinstance(raw, OutsideRows) else raw
            return tuple(bytes(element) for element in unpack_bytes(taken, count))
        if len(typed) != count:
            raise InvalidArgument(f"input '{tensor.spec.name}' expects {count} elements, got {len(typed)}")
        return tuple(bytes(element) for element in typed)


def _shaped(tensor: InputPlan, flat: Array) -> Array:
    if flat.size != math.prod(tensor.shape):
        raise _wrong_size(tensor, f"{flat.size} elements")
    return flat.astype(tensor.spec.dtype, copy=False).reshape(tensor.shape)


def _wrong_size(tensor: InputPlan, got: str) -> InvalidArgument:
    shape = ",".join(str(dimension) for dimension in tensor.shape)
    expected = f"{math.prod(tensor.shape)} elements ({tensor.nbytes} bytes)"
    what = f"input '{tensor.spec.name}' of shape [{shape}] and datatype {tensor.spec.datatype}"
    return InvalidArgument(f"{what} expects {expected}, got {got}")
