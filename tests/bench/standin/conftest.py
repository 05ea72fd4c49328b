from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pynvml
import pytest
from nvml_rack import CardSpec, OpenRack, Rack, make_rack, nvml_here


@pytest.fixture
def open_rack(tmp_path: Path) -> Iterator[OpenRack]:
    """Makes a rack whose clock stands, and initialises NVML in this process."""
    with ExitStack() as stack:

        def make(*cards: CardSpec, **options: int) -> Rack:
            rack = stack.enter_context(make_rack(tmp_path, *cards, **options))
            rack.stop_clock()
            stack.enter_context(nvml_here(rack))
            pynvml.nvmlInit()
            return rack

        yield make


@pytest.fixture
def run_batch() -> Callable[..., None]:
    def run(handle: object, seconds: float, utilisation: float = 1.0) -> None:
        code = pynvml.nvmlLib.standinRunBatch(handle, ctypes.c_double(seconds), ctypes.c_double(utilisation))
        pynvml._nvmlCheckReturn(code)

    return run
