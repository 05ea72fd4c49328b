"""What the daemon does when the GPU fails for good: it ends in order, and says so to its supervisor."""

from __future__ import annotations

import asyncio
import logging
import os
import threading

from server.errors import CudaLost

EXIT_GPU_LOST = 75
"""The daemon's exit code (EX_TEMPFAIL of sysexits.h): start it anew; nothing less helps."""

_LOG = logging.getLogger(__name__)


class GpuLoss:
    """Whether the GPU was lost.

    Args:
        stop: set when it is, so that the daemon shuts down and gives the clocks back.
        patience_s: how long shutting down may take before the process is ended: calls into a broken driver
            may never return. The keeper gives the clocks back then.
    """

    def __init__(self, stop: asyncio.Event, patience_s: float) -> None:
        self._stop = stop
        self._watchdog = threading.Timer(patience_s, os._exit, (EXIT_GPU_LOST,))
        self._watchdog.daemon = True
        self.happened = False

    @property
    def exit_code(self) -> int:
        """0, or `EXIT_GPU_LOST`."""
        return EXIT_GPU_LOST if self.happened else 0

    def report(self, error: CudaLost) -> None:
        """Called in the event loop, at any batch that fails so; the first one counts."""
        if self.happened:
            return
        self.happened = True
        _LOG.critical("%s; ending with exit code %d", error, EXIT_GPU_LOST)
        self._watchdog.start()
        self._stop.set()

    def over(self) -> None:
        """The daemon has shut down: nothing is left to be waited for."""
        self._watchdog.cancel()
