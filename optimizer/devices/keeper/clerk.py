"""The clerk: what every request, every lost connection and every moment means. Events in, effects out.

No clock, socket or NVML in here: times are arguments, and what is to be done goes out as `Reply`, `Job` and
`Note`. So a day of clients that die, hang and lie is tried out in milliseconds.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from optimizer.devices.gpu import DeviceError
from optimizer.devices.keeper.lease import Lease
from optimizer.devices.keeper.permits import trespass
from optimizer.devices.keeper.protocol import (
    VERSION,
    Acquire,
    AskBounds,
    Hello,
    Refusal,
    Refused,
    Release,
    Renew,
    Request,
    Set,
    bounds_facts,
    encode_answer,
    encode_refusal,
)
from optimizer.devices.nvml.actuator import ClockBounds, GpuSetting
from optimizer.devices.nvml.failures import NvmlFailure, Remedy

# What is nobody's fault and passes by itself, and what was said of the GPU already.
_UNREMARKABLE = frozenset({Refusal.RESTORING, Refusal.NOT_RESTORED})
_HANG_UP = frozenset({Refusal.MALFORMED, Refusal.VERSION})


class Work(Enum):
    """What a GPU's thread can be asked to do."""

    INSPECT = "inspect"  # may it be set, and within which bounds?
    APPLY = "apply"
    RESTORE = "restore"


@dataclass(frozen=True, slots=True)
class Job:
    """Work for a GPU's thread, and which connection waits for it, if any. The thread does them in turn."""

    uuid: str
    work: Work
    connection: int | None = None
    setting: GpuSetting = field(default_factory=GpuSetting)
    for_lease: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job went: the bounds where they were asked for, or what failed."""

    job: Job
    bounds: ClockBounds | None = None
    failure: DeviceError | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A line for a connection."""

    connection: int
    line: bytes
    hang_up: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """An event for the log. Of events with the same `kind`, not None, the log may leave some out."""

    level: int
    text: str
    kind: str | None = None


Effect = Reply | Job | Note


@dataclass(slots=True)
class _Client:
    """One connection: who it is, which GPU it holds, and whether it waits for a job."""

    peer: str
    greeted: bool = False
    uuid: str | None = None
    expired: bool = False
    waiting: bool = False


@dataclass(slots=True)
class _Gpu:
    lease: Lease
    listed: bool
    bounds: ClockBounds | None = None
    said: bool = False  # that it cannot be restored


class Clerk:
    """Keeps the book of connections and leases.

    Args:
        uuids: the GPUs that may be held.
        lease_s: how long a lease runs when nobody renews it.
    """

    def __init__(self, uuids: Iterable[str], lease_s: float) -> None:
        self._lease_s = lease_s
        self._gpus = {uuid: _Gpu(Lease(lease_s), listed=True) for uuid in uuids}
        self._clients: dict[int, _Client] = {}
        self._stopping = False

    @property
    def next_s(self) -> float:
        """When `tick` is wanted next, infinite when only an event can bring something."""
        return min((gpu.lease.next_s for gpu in self._gpus.values()), default=math.inf)

    @property
    def all_restored(self) -> bool:
        """Whether no GPU is held or waits to be restored."""
        return all(gpu.lease.free for gpu in self._gpus.values())

    def holder(self, uuid: str) -> int | None:
        """Return the connection that holds a GPU."""
        return self._gpus[uuid].lease.holder

    def waiting(self, connection: int) -> bool:
        """Whether a connection waits for a job: its next request is not to be read before."""
        return connection in self._clients and self._clients[connection].waiting

    def busy(self, connection: int) -> bool:
        """Whether a connection holds a GPU or waits for a job."""
        client = self._clients[connection]
        return client.waiting or client.uuid is not None

    def found_marker(self, uuid: str) -> list[Effect]:
        """A keeper died while this GPU was set: it is restored first of all, listed or not."""
        gpu = self._gpus.setdefault(uuid, _Gpu(Lease(self._lease_s), listed=False))
        gpu.lease.end()
        note = Note(logging.WARNING, f"{uuid}: a marker was left over: giving the GPU back")
        return [note, Job(uuid, Work.RESTORE)]

    def opened(self, connection: int, peer: str) -> None:
        """A client connected; `peer` names it to others and in the log."""
        self._clients[connection] = _Client(peer)

    def closed(self, connection: int) -> list[Effect]:
        """A client is gone: what it held is given back at once."""
        client = self._clients.pop(connection, None)
        if client is None or client.uuid is None:
            return []
        return self._end(client.uuid, f"{client.peer} is gone")

    def tick(self, now_s: float) -> list[Effect]:
        """Time has passed: end what has run out, try again what could not be restored."""
        effects: list[Effect] = []
        for uuid, gpu in self._gpus.items():
            if gpu.lease.expired(now_s):
                effects += self._expire(uuid, gpu.lease.holder)
            if gpu.lease.restore_due(now_s):
                effects.append(Job(uuid, Work.RESTORE))
        return effects

    def stop(self) -> list[Effect]:
        """The keeper is to end: nobody holds anything any more."""
        self._stopping = True
        effects: list[Effect] = []
        for uuid, gpu in self._gpus.items():
            if gpu.lease.holder is not None:
                self._clients[gpu.lease.holder].uuid = None
                effects += self._end(uuid, "the keeper is being stopped")
        return effects

    def asked(self, connection: int, request: Request, now_s: float) -> list[Effect]:
        """A request came, from a connection that waits for no job."""
        try:
            return list(self._obey(connection, self._clients[connection], request, now_s))
        except Refused as refused:
            return self.refuse(connection, refused)

    def refuse(self, connection: int, refused: Refused) -> list[Effect]:
        """Answer with a refusal, and say so in the log."""
        peer = self._clients[connection].peer
        level = logging.DEBUG if refused.code in _UNREMARKABLE else logging.WARNING
        note = Note(level, f"refused {peer} ({refused.code}): {refused}", f"{peer} {refused.code}")
        return [note, Reply(connection, encode_refusal(refused), hang_up=refused.code in _HANG_UP)]

    def done(self, outcome: Outcome, now_s: float) -> list[Effect]:
        """A GPU's thread has finished a job."""
        if outcome.job.connection in self._clients:
            self._clients[outcome.job.connection].waiting = False
        finish = {
            Work.INSPECT: self._inspected,
            Work.APPLY: self._applied,
            Work.RESTORE: self._restored,
        }[outcome.job.work]
        return list(finish(self._gpus[outcome.job.uuid], outcome, now_s))

    def _obey(self, connection: int, client: _Client, request: Request, now_s: float) -> Iterator[Effect]:
        if isinstance(request, Hello):
            yield self._greet(connection, client, request)
            return
        if not client.greeted:
            raise Refused(Refusal.NO_HELLO, "the first request has to be `hello`")
        if self._stopping:
            raise Refused(Refusal.STOPPING, "the keeper is being stopped; try again when it is back")
        match request:
            case AskBounds(uuid):
                yield from self._ask_bounds(connection, client, uuid)
            case Acquire(uuid):
                yield from self._acquire(connection, client, uuid)
            case Set():
                yield from self._set(connection, client, request.setting)
            case Renew():
                self._held(client)[1].lease.run(now_s)
                yield Reply(connection, encode_answer({}))
            case Release():
                yield from self._release(connection, client)

    def _greet(self, connection: int, client: _Client, request: Hello) -> Reply:
        if request.version != VERSION:
            raise Refused(
                Refusal.VERSION,
                f"the keeper speaks version {VERSION} of its protocol, the client version {request.version}: "
                "install the same boulton on both sides",
            )
        client.greeted = True
        return Reply(connection, encode_answer({"version": VERSION, "lease_s": self._lease_s}))

    def _ask_bounds(self, connection: int, client: _Client, uuid: str) -> Iterator[Effect]:
        bounds = self._listed(uuid).bounds
        if bounds is not None:
            yield Reply(connection, encode_answer(bounds_facts(bounds)))
        else:
            client.waiting = True
            yield Job(uuid, Work.INSPECT, connection)

    def _acquire(self, connection: int, client: _Client, uuid: str) -> Iterator[Effect]:
        gpu = self._listed(uuid)
        self._check_free(connection, client, uuid, gpu.lease)
        gpu.lease.take(connection)
        client.uuid, client.expired, client.waiting = uuid, False, True
        yield Job(uuid, Work.INSPECT, connection, for_lease=True)

    def _check_free(self, connection: int, client: _Client, uuid: str, lease: Lease) -> None:
        if client.uuid not in (None, uuid):
            raise Refused(Refusal.ONE_GPU, f"this connection holds {client.uuid}; use another for {uuid}")
        if lease.holder not in (None, connection):
            raise Refused(Refusal.HELD, f"{uuid} is held by {self._clients[lease.holder or 0].peer}")
        if lease.restoring:
            raise Refused(Refusal.RESTORING, f"{uuid} is being given back to its own clocks; try again soon")

    def _set(self, connection: int, client: _Client, setting: GpuSetting) -> Iterator[Effect]:
        uuid, gpu = self._held(client)
        too_much = trespass(gpu.bounds, setting)
        if too_much is not None:
            raise Refused(Refusal.OUT_OF_BOUNDS, f"{uuid}: {too_much}; nothing was changed")
        gpu.lease.pause()
        client.waiting = True
        yield Job(uuid, Work.APPLY, connection, setting)

    def _release(self, connection: int, client: _Client) -> Iterator[Effect]:
        uuid, _gpu = self._held(client)
        client.uuid, client.waiting = None, True
        yield from self._end(uuid, f"{client.peer} released it", connection)

    def _end(self, uuid: str, why: str, connection: int | None = None) -> list[Effect]:
        self._gpus[uuid].lease.end()
        note = Note(logging.INFO, f"{uuid}: giving the GPU back: {why}")
        return [note, Job(uuid, Work.RESTORE, connection)]

    def _expire(self, uuid: str, holder: int | None) -> list[Effect]:
        client = self._clients[holder or 0]
        client.uuid, client.expired = None, True
        return self._end(uuid, f"{client.peer} has not renewed its lease for {self._lease_s:g} s")

    def _inspected(self, gpu: _Gpu, outcome: Outcome, now_s: float) -> Iterator[Effect]:
        connection, uuid = outcome.job.connection, outcome.job.uuid
        gpu.bounds = outcome.bounds or gpu.bounds
        holds = outcome.job.for_lease and connection is not None and gpu.lease.holder == connection
        if connection is None or connection not in self._clients:
            return
        if outcome.job.for_lease and not holds:
            yield from self.refuse(connection, Refused(Refusal.STOPPING, "the keeper is being stopped"))
        elif outcome.bounds is None:
            yield from self._not_inspected(outcome, connection, holds=holds)
        else:
            if holds:
                gpu.lease.run(now_s)
                yield Note(logging.INFO, f"{uuid}: held by {self._clients[connection].peer}")
            yield Reply(connection, encode_answer(bounds_facts(outcome.bounds)))

    def _not_inspected(self, outcome: Outcome, connection: int, *, holds: bool) -> Iterator[Effect]:
        if holds:
            # It may have been set before: who acquires a GPU again that he holds, and fails, loses it.
            self._clients[connection].uuid = None
            yield from self._end(outcome.job.uuid, "it cannot be set")
        yield from self.refuse(connection, Refused(_why(outcome.failure), str(outcome.failure)))

    def _applied(self, gpu: _Gpu, outcome: Outcome, now_s: float) -> Iterator[Effect]:
        connection, uuid = outcome.job.connection, outcome.job.uuid
        client = None if connection is None else self._clients.get(connection)
        holds = gpu.lease.holder is not None and gpu.lease.holder == connection
        if connection is None or client is None:
            return
        if outcome.failure is not None:
            if holds:
                client.uuid = None
                yield from self._end(uuid, "it could not be set")
            told = f"{outcome.failure}. The GPU is given back to its own clocks"
            yield from self.refuse(connection, Refused(_why(outcome.failure), told))
        elif not holds:
            yield from self.refuse(connection, Refused(Refusal.STOPPING, "the keeper is being stopped"))
        else:
            gpu.lease.run(now_s)
            yield Note(
                logging.INFO,
                f"{uuid}: set {setting_text(outcome.job.setting)} for {client.peer}",
            )
            yield Reply(connection, encode_answer({}))

    def _restored(self, gpu: _Gpu, outcome: Outcome, now_s: float) -> Iterator[Effect]:
        connection, uuid = outcome.job.connection, outcome.job.uuid
        if outcome.failure is None:
            gpu.lease.restored()
            gpu.said = False
            yield Note(logging.INFO, f"{uuid}: the GPU is as it was")
        else:
            gpu.lease.not_restored(now_s)
            if not gpu.said:
                text = f"{uuid}: cannot give the GPU back, and goes on trying: {outcome.failure}"
                yield Note(logging.ERROR, text)
            gpu.said = True
        if connection is not None and connection in self._clients:
            yield from self._answer_release(connection, outcome.failure)

    def _answer_release(self, connection: int, failure: DeviceError | None) -> Iterator[Effect]:
        if failure is None:
            yield Reply(connection, encode_answer({}))
        else:
            refused = Refused(Refusal.NOT_RESTORED, f"{failure}. The keeper goes on trying")
            yield from self.refuse(connection, refused)

    def _listed(self, uuid: str) -> _Gpu:
        gpu = self._gpus.get(uuid)
        if gpu is None or not gpu.listed:
            listed = ", ".join(name for name, each in self._gpus.items() if each.listed)
            raise Refused(
                Refusal.UNKNOWN_GPU,
                f"{uuid[:100]!r} is not on the keeper's list, which has {listed}: add it to the keeper's "
                "configuration as [[gpu]]",
            )
        return gpu

    def _held(self, client: _Client) -> tuple[str, _Gpu]:
        if client.uuid is not None:
            return client.uuid, self._gpus[client.uuid]
        if client.expired:
            raise Refused(
                Refusal.EXPIRED,
                f"the lease was not renewed for {self._lease_s:g} s, and the GPU was given back: acquire it",
            )
        raise Refused(Refusal.NO_LEASE, "`acquire` has to come first")


def _why(failure: DeviceError | None) -> Refusal:
    lost = isinstance(failure, NvmlFailure) and failure.remedy is Remedy.STOP
    return Refusal.LOST if lost else Refusal.GPU


def setting_text(setting: GpuSetting) -> str:
    """Say a setting in words."""
    parts = []
    if setting.sm_clock_mhz is not None:
        parts.append(f"SM clock {setting.sm_clock_mhz} MHz")
    if setting.memory_clock_mhz is not None:
        parts.append(f"memory clock {setting.memory_clock_mhz} MHz")
    if setting.power_limit_w is not None:
        parts.append(f"power limit {setting.power_limit_w:g} W")
    return ", ".join(parts) or "nothing: all its own"
