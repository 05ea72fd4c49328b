"""The driver's own functions, called through ctypes: what pycuda lacks."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from ctypes import byref, c_char_p, c_int, c_void_p
from typing import Any

_GET_ERROR_STRING = "cuGetErrorString"


class DriverLibrary:
    """libcuda. The context must be bound in all calls.

    Args:
        arguments: the types of the arguments, for each function that will be called.
        library: as ctypes has it; None: loaded when it is first needed.
    """

    def __init__(
        self,
        arguments: Mapping[str, tuple[Any, ...]],
        library: Any | None = None,  # noqa: ANN401  # ctypes makes functions on the fly
    ) -> None:
        self._arguments = {**arguments, _GET_ERROR_STRING: (c_int, c_void_p)}
        self._library = library

    def code(self, name: str, *arguments: object) -> int:
        """Call a function and return its CUresult; 0 is success. Raises OSError where there is no driver."""
        if self._library is None:
            self._library = ctypes.CDLL("libcuda.so.1")
        function = getattr(self._library, name)
        function.argtypes, function.restype = self._arguments[name], c_int
        return int(function(*arguments))

    def message(self, code: int) -> str:
        """The driver's words for a CUresult."""
        text = c_char_p()
        self.code(_GET_ERROR_STRING, code, byref(text))
        return f"{(text.value or b'unknown error').decode()} ({code})"
