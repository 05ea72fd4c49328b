"""Cutting what comes from a socket into lines, without ever keeping more than a line may hold."""

from __future__ import annotations


class LineTooLong(Exception):
    """A line is longer than allowed; whatever follows cannot be understood."""


class LineBuffer:
    """Bytes in, lines out; half a line waits for its rest.

    Args:
        longest: bytes that a line may have without its newline.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._bytes = b""

    def feed(self, received: bytes) -> None:
        """Add what was received. Raises LineTooLong, also for a line that has not ended yet."""
        self._bytes += received
        if any(len(line) > self._longest for line in self._bytes.split(b"\n")):
            raise LineTooLong

    def take(self) -> bytes | None:
        """Return the next whole line without its newline, or None."""
        line, newline, rest = self._bytes.partition(b"\n")
        if not newline:
            return None
        self._bytes = rest
        return line
