"""The keeper's loop: sockets and finished work in, answers and work out. The clerk decides."""

from __future__ import annotations

import itertools
import logging
import math
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from optimizer.devices.keeper.clerk import Clerk, Effect, Job, Note, Reply
from optimizer.devices.keeper.crowd import dispensable
from optimizer.devices.keeper.lines import LineBuffer, LineTooLong
from optimizer.devices.keeper.mailbox import Mailbox
from optimizer.devices.keeper.peers import Peer, PeerPolicy, peer_of
from optimizer.devices.keeper.protocol import (
    LONGEST_LINE,
    Refusal,
    Refused,
    encode_refusal,
    parse_request,
)
from optimizer.devices.keeper.quiet import Quiet
from optimizer.devices.keeper.worker import Worker

MOST_CONNECTIONS = 64
STOP_WITHIN_S = 10.0
_CHUNK = 4096

logger = logging.getLogger("boulton.keeper")


@dataclass(slots=True)
class _Connection:
    number: int
    socket: socket.socket
    peer: Peer
    lines: LineBuffer = field(default_factory=lambda: LineBuffer(LONGEST_LINE))
    unsent: bytes = b""
    hang_up: bool = False
    watched: int = 0  # the events that the selector waits for


class Service:
    """Serves one listening socket until it is asked to stop.

    A request that needs NVML is handed to its GPU's thread, and its connection is not read until that is
    done. Everything else is answered at once; whoever floods the keeper is read one chunk a round, like all.

    Args:
        listener: bound and listening.
        workers: one for each GPU that is listed or has a marker; started.
        clerk: decides.
        policy: who may talk to the keeper.
        mailbox: where the workers report.
        clock: seconds, monotonic: no step of the wall clock touches a lease.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        workers: Mapping[str, Worker],
        clerk: Clerk,
        policy: PeerPolicy,
        mailbox: Mailbox,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listener = listener
        self._workers = workers
        self._clerk = clerk
        self._policy = policy
        self._mailbox = mailbox
        self._clock = clock
        self._connections: dict[int, _Connection] = {}  # the one that has been silent longest first
        self._touched: set[int] = set()  # connections that have something to send or to wait for
        self._numbers = itertools.count(1)
        self._quiet = Quiet()
        self._selector = selectors.DefaultSelector()
        self._stop_by_s = math.inf

    def run(self) -> bool:
        """Serve until the mailbox asks to stop; return whether every GPU was given back then."""
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._mailbox.awake, selectors.EVENT_READ, self._wake_up)
        while not self._ended():
            self._round()
        for connection in list(self._connections.values()):
            self._close(connection)
        self._selector.close()
        return self._clerk.all_restored

    def obey(self, effects: Iterable[Effect]) -> None:
        """Do what the clerk says."""
        for effect in effects:
            if isinstance(effect, Job):
                self._workers[effect.uuid].submit(effect)
            elif isinstance(effect, Reply):
                self._answer(effect)
            else:
                self._say(effect)

    def _round(self) -> None:
        next_s = min(self._clerk.next_s, self._stop_by_s)
        timeout_s = None if next_s == math.inf else max(0.0, next_s - self._clock())
        for key, _events in self._selector.select(timeout_s):
            key.data()
        if self._mailbox.stop_asked and self._stop_by_s == math.inf:
            self._begin_to_stop()
        self.obey(self._clerk.tick(self._clock()))
        self._flush()

    def _ended(self) -> bool:
        if self._stop_by_s == math.inf:
            return False
        return self._clerk.all_restored or self._clock() >= self._stop_by_s

    def _begin_to_stop(self) -> None:
        logger.info("stopping: giving every GPU back")
        self._stop_by_s = self._clock() + STOP_WITHIN_S
        self._selector.unregister(self._listener)
        self.obey(self._clerk.stop())

    def _wake_up(self) -> None:
        for outcome in self._mailbox.take():
            self.obey(self._clerk.done(outcome, self._clock()))
            waited = self._connections.get(outcome.job.connection or 0)
            if waited is not None:
                self._proceed(waited)

    def _accept(self) -> None:
        try:
            accepted, _address = self._listener.accept()
        except OSError as error:  # gone again already, or no descriptors left
            self._say(Note(logging.WARNING, f"a client could not be let in: {error}", "accept"))
            return
        accepted.setblocking(False)
        try:
            peer = peer_of(accepted)
        except OSError:
            accepted.close()
            return
        refused = self._unwelcome(peer)
        if refused is None:
            self._open(accepted, peer)
        else:
            self._turn_away(accepted, peer, refused)

    def _unwelcome(self, peer: Peer) -> Refused | None:
        if not self._policy.allows(peer):
            return Refused(
                Refusal.PEER,
                f"uid {peer.uid} may not set GPUs here; allowed is {self._policy}: add it to `users` in the "
                "keeper's configuration",
            )
        if len(self._connections) >= MOST_CONNECTIONS and not self._made_room(peer):
            return Refused(Refusal.TOO_MANY, f"{MOST_CONNECTIONS} clients are connected and busy")
        return None

    def _made_room(self, newcomer: Peer) -> bool:
        """Hang up on somebody idle, whose client connects again when it has something to ask."""
        users = {number: each.peer.uid for number, each in self._connections.items()}
        leaving = dispensable(users, {number for number in users if self._clerk.busy(number)})
        if leaving is None:
            return False
        peer = self._connections[leaving].peer
        note = f"hung up on {peer}, which said nothing, to let {newcomer} in: too many are connected"
        self._say(Note(logging.WARNING, note, f"uid {peer.uid} crowds"))
        self._close(self._connections[leaving])
        return True

    def _turn_away(self, accepted: socket.socket, peer: Peer, refused: Refused) -> None:
        note = f"refused {peer} ({refused.code}): {refused}"
        self._say(Note(logging.WARNING, note, f"uid {peer.uid} {refused.code}"))
        with accepted:
            try:
                accepted.send(encode_refusal(refused))
            except OSError:
                return

    def _open(self, accepted: socket.socket, peer: Peer) -> None:
        connection = _Connection(next(self._numbers), accepted, peer)
        self._connections[connection.number] = connection
        self._clerk.opened(connection.number, str(peer))
        self._touched.add(connection.number)

    def _attend(self, connection: _Connection) -> None:
        """Its socket is ready, to be read or to be written to."""
        if connection.number not in self._connections:  # hung up on in this very round, to let another in
            return
        self._touched.add(connection.number)
        if not connection.unsent:
            self._receive(connection)

    def _receive(self, connection: _Connection) -> None:
        try:
            received = connection.socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self._close(connection)
            return
        self._connections[connection.number] = self._connections.pop(connection.number)  # the last to go
        try:
            connection.lines.feed(received)
        except LineTooLong:
            refused = Refused(Refusal.MALFORMED, f"a line may have {LONGEST_LINE} bytes at most")
            self.obey(self._clerk.refuse(connection.number, refused))
        self._proceed(connection)

    def _proceed(self, connection: _Connection) -> None:
        """Take the requests that have come, until one has to wait for its GPU."""
        self._touched.add(connection.number)
        while not connection.hang_up and not self._clerk.waiting(connection.number):
            line = connection.lines.take()
            if line is None:
                return
            self._ask(connection, line)

    def _ask(self, connection: _Connection, line: bytes) -> None:
        try:
            request = parse_request(line)
        except Refused as refused:
            self.obey(self._clerk.refuse(connection.number, refused))
        else:
            self.obey(self._clerk.asked(connection.number, request, self._clock()))

    def _answer(self, reply: Reply) -> None:
        connection = self._connections.get(reply.connection)
        if connection is not None:
            connection.unsent += reply.line
            connection.hang_up |= reply.hang_up
            self._touched.add(connection.number)

    def _flush(self) -> None:
        """Send what there is to be sent, and have the selector wait for what comes next."""
        while self._touched:
            connection = self._connections.get(self._touched.pop())
            if connection is not None:
                self._send(connection)
                self._watch(connection)

    def _send(self, connection: _Connection) -> None:
        try:
            sent = connection.socket.send(connection.unsent) if connection.unsent else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            connection.hang_up = True
            sent = 0
        connection.unsent = connection.unsent[sent:]
        if connection.hang_up:
            self._close(connection)

    def _watch(self, connection: _Connection) -> None:
        """Wait until the client reads its answers; else for its next request; not while its GPU is set.

        So nobody's unread answers grow beyond those to one chunk of requests.
        """
        if connection.number not in self._connections:
            return
        reading = 0 if self._clerk.waiting(connection.number) else selectors.EVENT_READ
        self._select(connection, selectors.EVENT_WRITE if connection.unsent else reading)

    def _select(self, connection: _Connection, events: int) -> None:
        before, connection.watched = connection.watched, events
        attend = partial(self._attend, connection)
        if before and events:
            self._selector.modify(connection.socket, events, attend)
        elif before:
            self._selector.unregister(connection.socket)
        elif events:
            self._selector.register(connection.socket, events, attend)

    def _close(self, connection: _Connection) -> None:
        del self._connections[connection.number]
        self._select(connection, 0)
        connection.socket.close()
        self.obey(self._clerk.closed(connection.number))

    def _say(self, note: Note) -> None:
        held = self._quiet.admit(note.kind, self._clock())
        if held is not None:
            suffix = f" ({held} more like this)" if held else ""
            logger.log(note.level, "%s%s", note.text, suffix)
