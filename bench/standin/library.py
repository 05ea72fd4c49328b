"""The control's own functions in the library."""

from __future__ import annotations

import ctypes
from pathlib import Path

from bench.standin import layout
from bench.standin.build import LIBRARY


class RackError(Exception):
    """The rack cannot be made or opened, or has no room; says which and what to do."""


def load(directory: Path) -> ctypes.CDLL:
    """Load the library and declare the control's functions; RackError when it is of another version."""
    library = ctypes.CDLL(str(directory / LIBRARY))
    for name, result, arguments in (
        ("standinCreate", ctypes.c_void_p, [ctypes.c_char_p]),
        ("standinOpen", ctypes.c_void_p, [ctypes.c_char_p]),
        ("standinPublish", None, [ctypes.c_void_p]),
        ("standinClose", None, [ctypes.c_void_p]),
        ("standinLock", None, [ctypes.c_void_p]),
        ("standinUnlock", None, [ctypes.c_void_p]),
        ("standinStart", None, [ctypes.c_void_p, ctypes.c_int64]),
        ("standinAdvance", None, [ctypes.c_void_p, ctypes.c_int64]),
        ("standinState", None, [ctypes.c_void_p, ctypes.c_void_p]),
        ("standinBook", ctypes.c_int, [ctypes.c_void_p, ctypes.c_double, ctypes.c_double]),
        ("standinNow", ctypes.c_int64, [ctypes.c_void_p]),
        ("standinMonotonic", ctypes.c_int64, []),
        ("standinFunction", ctypes.c_char_p, [ctypes.c_uint32]),
        ("standinDescribedSize", ctypes.c_uint32, []),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    _check_layout(library)
    return library


def _check_layout(library: ctypes.CDLL) -> None:
    described, built = ctypes.sizeof(layout.RackState), library.standinDescribedSize()
    if described != built:
        raise RackError(
            f"the library keeps {built} bytes of state, bench/standin/layout.py describes {described}: "
            "build it anew"
        )


def function_numbers(library: ctypes.CDLL) -> dict[str, int]:
    """The functions that are counted and can be scripted, by the name that NVML gives them."""
    numbers: dict[str, int] = {}
    while (name := library.standinFunction(len(numbers))) is not None:
        numbers[name.decode()] = len(numbers)
    return numbers
