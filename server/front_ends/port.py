"""Keeping a port for several processes of one daemon, and from any other daemon."""

from __future__ import annotations

import socket
from dataclasses import replace

from server.transport.grpc_server import PortSettings, cannot_listen


class KeptPort:
    """A port that front ends share; 0 takes a free one. Nothing listens here: the front ends do.

    As long as it is kept, nobody who does not mean to share it can have it.

    Args:
        settings: the port as asked for.

    Raises:
        CannotListen: it is in use, or the address is not this machine's.
    """

    def __init__(self, settings: PortSettings) -> None:
        try:
            family, (host, number) = _resolve(settings)
            number = _free_number(family, (host, number))
            self._socket = _held(family, (host, number))
        except (OSError, UnicodeError) as error:
            raise cannot_listen(settings) from error
        self.settings = replace(settings, port=number, shared=True)

    def close(self) -> None:
        """Let go of it. Idempotent."""
        self._socket.close()


def _resolve(settings: PortSettings) -> tuple[int, tuple[str, int]]:
    host = settings.host.strip("[]")
    found = socket.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    return family, (str(address[0]), settings.port)


def _free_number(family: int, address: tuple[str, int]) -> int:
    """Return the port's number if nobody else has it: a socket that shares would not notice."""
    with _bound(family, address, socket.SO_REUSEADDR) as probe:
        probe.listen(1)
        number: int = probe.getsockname()[1]
        return number


def _held(family: int, address: tuple[str, int]) -> socket.socket:
    """Bind a port that is free, so that nobody has it who does not share it."""
    try:
        return _bound(family, address, socket.SO_REUSEPORT)
    except OSError:  # what is left of the closed connections of a daemon that did not share it
        return _bound(family, address, socket.SO_REUSEPORT, socket.SO_REUSEADDR)


def _bound(family: int, address: tuple[str, int], *options: int) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        for option in options:
            bound.setsockopt(socket.SOL_SOCKET, option, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
