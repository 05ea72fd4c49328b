"""Who is at the other end of a Unix socket, as the kernel says, and who may talk to the keeper."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_SO_PEERGROUPS = 59  # Linux 4.13 and newer; Python has no name for it
_GROUPS_BYTES = 1024  # what Python reads at most: 256 groups; of a member of more, only his first counts


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected; `groups` are its own and its supplementary ones."""

    pid: int
    uid: int
    groups: frozenset[int]

    def __str__(self) -> str:
        """Name it for logs and for other clients."""
        return f"pid {self.pid}, uid {self.uid}"


@dataclass(frozen=True, slots=True)
class PeerPolicy:
    """Which users may talk to the keeper: those named, and members of the groups named."""

    users: frozenset[int]
    groups: frozenset[int]

    def allows(self, peer: Peer) -> bool:
        """Whether a process may talk to the keeper."""
        return peer.uid in self.users or bool(peer.groups & self.groups)

    def __str__(self) -> str:
        """Name the users for a refusal."""
        users = f"uid {', '.join(map(str, sorted(self.users)))}" if self.users else ""
        groups = f"gid {', '.join(map(str, sorted(self.groups)))}" if self.groups else ""
        return " and ".join(filter(None, (users, groups)))


def peer_of(connection: socket.socket) -> Peer:
    """Return who connected; the kernel noted it at that moment. Raises OSError."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return Peer(pid, uid & 0xFFFFFFFF, frozenset({gid & 0xFFFFFFFF, *_supplementary(connection)}))


def _supplementary(connection: socket.socket) -> tuple[int, ...]:
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError:
        return ()
    return struct.unpack(f"{len(raw) // 4}I", raw)


def own_policy() -> PeerPolicy:
    """Allow nobody but the user that runs the keeper."""
    return PeerPolicy(frozenset({os.geteuid()}), frozenset())
