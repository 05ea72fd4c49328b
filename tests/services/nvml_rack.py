"""Simulated cards behind a real NVML interface, for tests: in this process or in others.

In a test module:

    from nvml_rack import make_rack, nvml_here

    @pytest.fixture
    def rack(tmp_path):
        with make_rack(tmp_path, make_card("ampere"), make_card("pascal", 1)) as rack:
            yield rack

    def test_in_a_process_of_its_own(rack):
        subprocess.run([...], env=rack_env(rack), check=True)

    def test_in_this_process(rack):
        with nvml_here(rack):            # pynvml now talks to the rack; nvmlInit is still up to you
            ...

By default the user who runs the tests may set clocks: `make_rack(..., privileged_uid=1)` to be refused.
"""

from __future__ import annotations

import ctypes
import functools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pynvml

from bench.standin.build import build
from bench.standin.cards import CardSpec, make_card
from bench.standin.control import ENVIRONMENT, Rack

__all__ = [
    "CardSpec",
    "OpenRack",
    "Rack",
    "library_directory",
    "make_card",
    "make_rack",
    "nvml_here",
    "rack_env",
]


OpenRack = Callable[..., Rack]  # makes a rack of cards that pynvml in this process talks to


@functools.cache
def _own_directory() -> tempfile.TemporaryDirectory[str]:
    directory = tempfile.TemporaryDirectory(prefix="boulton-standin-")
    Path(directory.name).chmod(0o755)  # other users load the library too
    return directory


def library_directory() -> Path:
    """Where the library is; built once for each test process, and removed at its end."""
    return build(Path(_own_directory().name))


@contextmanager
def make_rack(directory: Path, *cards: CardSpec, privileged_uid: int | None = None) -> Iterator[Rack]:
    """A rack in `directory`; one usual A100 when no cards are given.

    `privileged_uid` may set, on all cards: by default the user who runs this. With cards of several users,
    give them in the specs and -1 here.
    """
    uid = os.geteuid() if privileged_uid is None else privileged_uid
    specs = cards or (make_card(),)
    if uid >= 0:
        specs = tuple(replace(spec, privileged_uid=uid) for spec in specs)
    path = Path(tempfile.mkdtemp(prefix="rack-", dir=directory)) / "rack"
    path.parent.chmod(0o755)
    with Rack.create(path, specs, library_directory()) as rack:
        yield rack


def rack_env(rack: Rack) -> dict[str, str]:
    """This process's environment with what a child needs to see the rack."""
    return {**os.environ, **rack.environment}


@contextmanager
def nvml_here(rack: Rack) -> Iterator[None]:
    """Let pynvml in this process talk to the rack, with no nvmlInit pending before or after."""
    before, library = os.environ.get(ENVIRONMENT), pynvml.nvmlLib
    os.environ[ENVIRONMENT] = str(rack.path)
    _use_library(ctypes.CDLL(str(rack.library)))
    try:
        yield
    finally:
        rack.clear_failures()
        _shut_down()
        _use_library(library)
        _restore(before)


def _use_library(library: ctypes.CDLL | None) -> None:
    pynvml.nvmlLib = library
    pynvml._nvmlGetFunctionPointer_cache.clear()


def _shut_down() -> None:
    """Whatever the test left open: a test that fails must not fail the next."""
    try:
        while True:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        pass


def _restore(before: str | None) -> None:
    if before is None:
        os.environ.pop(ENVIRONMENT, None)
    else:
        os.environ[ENVIRONMENT] = before
