"""SIGBUS, which the kernel sends to a thread that reads a page which its file has lost.

It is heard in that thread, at that instruction, in whatever function of whatever library: so the handler is
one of C (`sigaction`), not one of `signal`, which only notes the signal and leaves the instruction to fail
again. When the handler returns, the instruction is tried again; so all it has to do is to put some memory
there. That it is Python is allowed because the signal comes from an instruction that touches memory, never
from within the allocator or the interpreter's own bookkeeping, which touch no mapped files.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from server.wire.outside_memory import system_error

_SIGINFO = 4  # SA_SIGINFO of Linux
_NEEDS = ("linux", 8)  # the structures below are those of 64-bit Linux

logger = logging.getLogger("boulton.shared_memory")


class _Action(ctypes.Structure):
    """`struct sigaction` of the C library."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


class _Info(ctypes.Structure):
    """The beginning of `siginfo_t`, for a signal that an instruction caused."""

    _fields_ = (
        ("number", ctypes.c_int),
        ("errno", ctypes.c_int),
        ("code", ctypes.c_int),
        ("address", ctypes.c_void_p),
    )


_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.POINTER(_Info), ctypes.c_void_p)
_LIBC: Any = ctypes.CDLL(None, use_errno=True)


class BusErrors:
    """Has bus errors mended while it is started. One that is not ends the process as it ever did.

    Args:
        mend: given the address that could not be read: put memory there and return True, or return False.
            Called in the thread that reads.
    """

    def __init__(self, mend: Callable[[int], bool]) -> None:
        self._mend = mend
        self._handler = _Handler(self._on_signal)  # referred to for as long as the kernel may call it
        self._before: _Action | None = None

    def start(self) -> bool:
        """Begin; False where this system is not known."""
        if (sys.platform, ctypes.sizeof(ctypes.c_void_p)) != _NEEDS:
            return False
        action = _Action(handler=ctypes.cast(self._handler, ctypes.c_void_p).value, flags=_SIGINFO)
        self._before = _exchanged(action)
        return True

    def stop(self) -> None:
        """Have the signal do what it did before. Idempotent."""
        before, self._before = self._before, None
        if before is not None:
            _exchanged(before)

    @property
    def started(self) -> bool:
        """Whether they are mended now."""
        return self._before is not None

    def _on_signal(self, _number: int, info: Any, _context: object) -> None:  # noqa: ANN401  # a pointer
        by_instruction = info.contents.code > 0
        if by_instruction and self._mended(info.contents.address or 0):
            return
        self.stop()  # the instruction, tried again, fails for good
        if not by_instruction:
            os.kill(os.getpid(), signal.SIGBUS)  # somebody sent it: send it on

    def _mended(self, address: int) -> bool:
        try:
            return self._mend(address)
        except Exception:
            logger.exception("a bus error could not be mended")
            return False


def _exchanged(action: _Action) -> _Action:
    """Set what SIGBUS does; return what it did."""
    before = _Action()
    if _LIBC.sigaction(signal.SIGBUS, ctypes.byref(action), ctypes.byref(before)):
        raise system_error()
    return before
