"""One connection to a keeper: a request out, its answer in."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

from optimizer.devices.gpu import DeviceError
from optimizer.devices.keeper.protocol import (
    VERSION,
    Hello,
    Request,
    encode_request,
    parse_answer,
)

_LONGEST_ANSWER = 1 << 16


class KeeperUnreachable(DeviceError):
    """The keeper does not answer; whoever held a lease has to take it as lost."""


class KeeperSilent(KeeperUnreachable):
    """Somebody listens there and says nothing, as a process that hangs: to ask again at once is of no use."""


class Session:
    """A connection to a keeper, open and greeted. One thread at a time uses it.

    Args:
        connection: connected.
        where: the socket's path, for messages.
    """

    def __init__(self, connection: socket.socket, where: Path) -> None:
        self._socket = connection
        self._where = where
        self._received = b""

    def ask(self, request: Request) -> dict[str, object]:
        """Return the keeper's answer. Raises Refused, or KeeperUnreachable: then the session is over."""
        try:
            with suppress(BrokenPipeError):  # whoever is turned away is told why, and then hung up on
                self._socket.sendall(encode_request(request))
            line = self._line()
        except TimeoutError as error:
            raise _silent(self._where, self._socket.gettimeout()) from error
        except OSError as error:
            raise _unreachable(self._where, error) from error
        return parse_answer(line)

    def close(self) -> None:
        """Hang up: the keeper gives back what this connection holds."""
        self._socket.close()

    def _line(self) -> bytes:
        while b"\n" not in self._received:
            received = self._socket.recv(_LONGEST_ANSWER)
            if not received or len(self._received) > _LONGEST_ANSWER:
                raise ConnectionResetError("it hung up")
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        return line


def open_session(path: Path, timeout_s: float) -> tuple[Session, float]:
    """Connect and greet; return the session and how many seconds a lease runs.

    Args:
        path: the keeper's socket.
        timeout_s: how long any answer may take.

    Raises:
        KeeperUnreachable: no keeper answers there.
        Refused: this user may not talk to it, or it speaks another version.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout_s)
    try:
        connection.connect(str(path))
        session = Session(connection, path)
        return session, _lease_s(session.ask(Hello(VERSION)))
    except TimeoutError as error:
        connection.close()
        raise _silent(path, timeout_s) from error
    except OSError as error:
        connection.close()
        raise _unreachable(path, error) from error
    except DeviceError:
        connection.close()
        raise


def _lease_s(facts: dict[str, object]) -> float:
    lease_s = facts.get("lease_s")
    if not isinstance(lease_s, int | float) or lease_s <= 0:
        raise KeeperUnreachable(f"the keeper says that a lease runs {lease_s!r} s: not a keeper of this kind")
    return float(lease_s)


def _silent(path: Path, timeout_s: float | None) -> KeeperSilent:
    return KeeperSilent(f"the keeper at {path} gave no answer for {timeout_s} s")


def _unreachable(path: Path, error: OSError) -> KeeperUnreachable:
    why = error.strerror or str(error)
    advice = "is `boulton keeper` running, with this --socket?"
    if isinstance(error, PermissionError):
        advice = "this user has to be named by `users` or `groups` in the keeper's configuration"
    return KeeperUnreachable(f"no keeper at {path} ({why}): {advice}")
