"""`KeeperClient`: sets one GPU through a keeper, and stays its holder for as long as this process lives."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from threading import Event, Lock, Thread

from optimizer.devices.gpu import DeviceError, DeviceLost
from optimizer.devices.keeper.protocol import (
    Acquire,
    AskBounds,
    Refusal,
    Refused,
    Release,
    Renew,
    Request,
    Set,
    bounds_from,
)
from optimizer.devices.keeper.session import KeeperSilent, KeeperUnreachable, Session, open_session
from optimizer.devices.nvml.actuator import ClockBounds, GpuSetting

TIMEOUT_S = 2.0
RENEW_S = 0.3
SILENCE_S = 10.0
"""For so long a keeper that gave no answer is not asked again: each question may cost the whole timeout."""
_TRY_AGAIN_S = 0.05
_OWN = GpuSetting()
# After these the GPU has its own clocks, or gets them, and the lease is gone.
_LOST = frozenset({Refusal.EXPIRED, Refusal.NO_LEASE, Refusal.STOPPING})
# After these the keeper, or whoever answered, has hung up.
_HUNG_UP = frozenset({Refusal.MALFORMED, Refusal.VERSION, Refusal.PEER, Refusal.TOO_MANY})

logger = logging.getLogger("boulton.keeper_client")


class KeeperClient:
    """Sets one GPU through a keeper; implements `Actuator`.

    The first setting connects and takes the lease, and a small thread renews it from then on. When the keeper
    was restarted, or this process stood still until its lease ran out, that thread takes the lease anew and
    sets again what was set last. When that fails, `trouble` says so until it succeeds.

    After `set` has failed, the GPU has its own clocks, or gets them within the lease; only a setting that was
    out of bounds leaves the earlier one in force.

    Args:
        socket_path: where the keeper listens.
        uuid: the GPU.
        timeout_s: how long any answer may take.
        renew_s: how often the lease is renewed; at most a third of the keeper's lease is used in any case.
    """

    def __init__(
        self, socket_path: Path, uuid: str, *, timeout_s: float = TIMEOUT_S, renew_s: float = RENEW_S
    ) -> None:
        self._path = socket_path
        self._uuid = uuid
        self._timeout_s = timeout_s
        self._renew_s = renew_s
        self._lock = Lock()
        self._session: Session | None = None
        self._holds = False
        self._unreturned = ""  # why it is not known whether the GPU was given back
        self._fault = ""  # what the GPU refused last
        self._wanted = _OWN
        self._trouble = ""
        self._disturbances = 0
        self._silence = ""  # what was said of a keeper that gave no answer
        self._ask_again_s = -math.inf
        self._ended = Event()
        self._thread: Thread | None = None

    @property
    def trouble(self) -> str:
        """Why the setting asked for last is not held at the moment; empty while all is well."""
        return self._trouble

    @property
    def disturbances(self) -> int:
        """How often so far the setting was lost, or was taken up again, without anybody asking for it."""
        return self._disturbances

    def bounds(self) -> ClockBounds | None:
        """Return what the keeper permits on this GPU; None, and `trouble`, when it does not say.

        Raises `DeviceLost` when the GPU is lost.
        """
        with self._lock:
            try:
                found = bounds_from(self._ask(AskBounds(self._uuid)))
            except DeviceLost:
                raise
            except DeviceError as error:
                self._trouble = str(error)  # whoever asked knows what follows from it, and says so
                return None
            self._trouble = ""
            return found

    def set(self, setting: GpuSetting) -> None:
        """Have the keeper set the GPU, whole.

        Raises `DeviceError` when it is refused or does not answer; `DeviceLost` when the GPU is lost.
        """
        with self._lock:
            try:
                self._set(setting)
            except DeviceError as error:
                if not _harmless(error):
                    self._wanted, self._trouble = _OWN, str(error)
                raise
            self._wanted, self._trouble, self._fault = setting, "", ""
        self._keep_alive()

    def release(self) -> None:
        """Give the GPU back and let others have it; raises `DeviceError` when that is not confirmed.

        Without a confirmation the connection is cut: a keeper that lives gives the GPU back then, and one
        that was killed does when it is started again.
        """
        with self._lock:
            self._wanted, self._trouble = _OWN, ""
            if self._session is None or not self._holds:
                self._check_returned()
                return
            try:
                self._session.ask(Release())
                self._holds = False
            except DeviceError as error:
                gone = isinstance(error, Refused) and error.code in _LOST
                self._holds = not gone
                self._hang_up(str(error))
                if not gone:
                    raise

    def close(self) -> None:
        """Give the GPU back and hang up; never raises."""
        self._ended.set()
        said = bool(self._unreturned)
        try:
            self.release()
        except DeviceError as error:
            if not said:
                logger.warning("%s", error)
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._hang_up()

    def _set(self, setting: GpuSetting) -> None:
        """Set in the present session; in a new one if it was lost unnoticed."""
        request = Set(setting.sm_clock_mhz, setting.memory_clock_mhz, setting.power_limit_w)
        try:
            self._acquire()
            self._ask(request)
        except DeviceError as error:
            if not _is_lost(error):
                raise
            self._acquire()
            self._ask(request)

    def _acquire(self) -> None:
        give_up_s = time.monotonic() + self._timeout_s
        while not self._holds:
            try:
                self._ask(Acquire(self._uuid))
                self._holds, self._unreturned = True, ""
            except Refused as refused:
                if refused.code is not Refusal.RESTORING:
                    raise
                if time.monotonic() >= give_up_s:
                    raise Refused(refused.code, self._fault or str(refused)) from refused
                time.sleep(_TRY_AGAIN_S)

    def _ask(self, request: Request) -> dict[str, object]:
        if time.monotonic() < self._ask_again_s:
            raise KeeperSilent(self._silence)
        held = self._holds
        try:
            return self._open().ask(request)
        except Refused as refused:
            if refused.code in _HUNG_UP:
                self._hang_up(str(refused))
            self._holds = self._holds and refused.code is Refusal.OUT_OF_BOUNDS
            if refused.code is Refusal.LOST:
                raise DeviceLost(str(refused)) from refused
            if refused.code is Refusal.GPU:
                self._fault = str(refused)
            raise
        except DeviceError as error:
            if isinstance(error, KeeperSilent):
                self._silence, self._ask_again_s = str(error), time.monotonic() + SILENCE_S
            self._hang_up(str(error))
            raise
        finally:
            self._disturbances += held and not self._holds

    def _open(self) -> Session:
        if self._session is None:
            self._session, lease_s = open_session(self._path, self._timeout_s)
            self._renew_s = min(self._renew_s, lease_s / 3)
        return self._session

    def _check_returned(self) -> None:
        if self._unreturned:
            raise KeeperUnreachable(
                f"whether {self._uuid} was given back is not known ({self._unreturned}): the keeper gives it "
                "back as soon as it can"
            )

    def _hang_up(self, why: str = "") -> None:
        if self._holds:
            self._unreturned = why or "it hung up"
        self._holds = False
        if self._session is not None:
            self._session.close()
            self._session = None

    def _keep_alive(self) -> None:
        if self._thread is None and not self._ended.is_set():
            # A daemon thread: it must not keep a process alive whose main thread has ended.
            self._thread = Thread(target=self._renew, name="keeper-lease", daemon=True)
            self._thread.start()

    def _renew(self) -> None:
        while not self._ended.wait(self._renew_s):
            with self._lock:
                self._renew_once()

    def _renew_once(self) -> None:
        """Renew the lease; when it is lost, take it anew and set again what was set last."""
        try:
            if self._holds:
                try:
                    self._ask(Renew())
                except DeviceError as error:
                    self._note(error)
            if not self._holds and self._wanted != _OWN:
                self._set(self._wanted)
                self._disturbances += 1
                logger.warning("the keeper holds the setting of %s again", self._uuid)
                self._trouble = ""
        except DeviceError as error:
            self._note(error)

    def _note(self, error: DeviceError) -> None:
        if not self._trouble:
            logger.warning("%s", error)
        self._trouble = str(error)


def _is_lost(error: DeviceError) -> bool:
    """Whether the lease or the connection went away before, and trying once more may help."""
    if isinstance(error, KeeperUnreachable):
        return not isinstance(error, KeeperSilent)
    return isinstance(error, Refused) and error.code in _LOST


def _harmless(error: DeviceError) -> bool:
    return isinstance(error, Refused) and error.code is Refusal.OUT_OF_BOUNDS
