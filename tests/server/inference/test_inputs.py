"""Decoding images off the event loop, within bounds."""

from __future__ import annotations

import asyncio
import threading
from types import ModuleType

import numpy as np
import pytest

from server.errors import InvalidArgument, Unavailable, Unimplemented
from server.inference import inputs as infer_inputs
from server.inference.inputs import ImageDecoder
from server.models.repository import ImageInput
from server.wire.shared_regions import SharedRegions
from server.wire.tensors import RegionSlice

IMAGE = ImageInput("image", 4, 4, 4)


async def test_images_come_in_order(tiny: ModuleType) -> None:
    decoder = ImageDecoder(threads=2)
    pictures = tuple(tiny.picture((n, 0, 0), "PNG") for n in range(10))
    decoded = await decoder.decode(pictures, IMAGE)
    assert decoded.shape == (10, 4, 4, 3)
    assert decoded[:, 0, 0, 0].tolist() == list(range(10))
    decoder.close()


async def test_more_than_may_wait_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    started, proceed = threading.Event(), threading.Event()

    def slow(_encoded: bytes, _image: ImageInput) -> np.ndarray:
        started.set()
        assert proceed.wait(30)
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(infer_inputs, "decode_image", slow)
    decoder = ImageDecoder(threads=1, max_pending=3)
    first = asyncio.create_task(decoder.decode((b"a", b"b"), IMAGE))
    assert await asyncio.to_thread(started.wait, 30)
    with pytest.raises(Unavailable, match="2 images wait to be decoded and 3 may"):
        await decoder.decode((b"c", b"d"), IMAGE)
    proceed.set()
    assert (await first).shape == (2, 4, 4, 3)
    assert (await decoder.decode((b"c", b"d"), IMAGE)).shape == (2, 4, 4, 3)
    decoder.close()


async def test_after_a_bad_image_and_a_cancelled_request_there_is_room_again(tiny: ModuleType) -> None:
    decoder = ImageDecoder(threads=1, max_pending=2)
    good = tiny.picture((1, 2, 3), "JPEG")
    with pytest.raises(InvalidArgument):
        await decoder.decode((b"not an image", good), IMAGE)
    task = asyncio.create_task(decoder.decode((good, good), IMAGE))
    await asyncio.sleep(0)  # let it begin
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await decoder.decode((good, good), IMAGE)).shape == (2, 4, 4, 3)
    decoder.close()


def test_without_shared_memory_it_is_said_how_to_get_it() -> None:
    with pytest.raises(Unimplemented, match="--shared-memory"):
        SharedRegions().view(RegionSlice("io", 0, 1))
