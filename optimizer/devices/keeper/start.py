"""The keeper's composition root: from a configuration to a running keeper."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from optimizer.devices.gpu import DeviceError
from optimizer.devices.keeper.clerk import Clerk
from optimizer.devices.keeper.config import KeeperConfig
from optimizer.devices.keeper.mailbox import Mailbox
from optimizer.devices.keeper.marker_files import MarkerFiles
from optimizer.devices.keeper.service import Service
from optimizer.devices.keeper.state_dir import listen, locked, prepare_state_dir
from optimizer.devices.keeper.steward import Steward
from optimizer.devices.keeper.worker import Worker
from optimizer.devices.nvml.library import Nvml

LOCK_NAME = "lock"
# Whatever ends a process that does not mind; SIGHUP comes when the terminal that it was started from goes.
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

logger = logging.getLogger("boulton.keeper")


def run_keeper(config: KeeperConfig) -> int:
    """Keep until SIGTERM, SIGINT, SIGQUIT, or SIGHUP where it is not ignored, as it is under nohup.

    Returns:
        0 when every GPU was given back; 1 when one could not be: its marker stays for the next keeper.

    Raises:
        DeviceError: it could not start.
    """
    mailbox = Mailbox()
    with _locked(config), Nvml() as nvml, _stop_on_signals(mailbox):
        service = _put_together(config, nvml, mailbox)
        _tell_systemd("READY=1")
        logger.info(
            "listening on %s for %s; setting %s", config.socket, config.policy, ", ".join(config.gpus)
        )
        restored = service.run()
        _tell_systemd("STOPPING=1")
    if restored:
        logger.info("ended; every GPU is as it was")
        return 0
    logger.error(
        "ended, and a GPU is not as it was: its marker stays in %s for the next keeper", config.state_dir
    )
    return 1


def _put_together(config: KeeperConfig, nvml: Nvml, mailbox: Mailbox) -> Service:
    markers = MarkerFiles(config.state_dir)
    left_over = markers.uuids()
    workers = {
        uuid: Worker(Steward(uuid, config.gpus.get(uuid), nvml, markers), mailbox.put)
        for uuid in {**config.gpus, **dict.fromkeys(left_over)}
    }
    for worker in workers.values():
        worker.start()
    clerk = Clerk(config.gpus, config.lease_s)
    listener = listen(config.socket, config.socket_group)
    service = Service(listener, workers=workers, clerk=clerk, policy=config.policy, mailbox=mailbox)
    for uuid in left_over:
        service.obey(clerk.found_marker(uuid))
    _warn(config, nvml)
    return service


def _warn(config: KeeperConfig, nvml: Nvml) -> None:
    """Say at once what would otherwise surprise at the first request."""
    if os.geteuid() != 0:
        logger.warning("not running as root: the driver will refuse to set anything")
    for uuid in config.gpus:
        try:
            nvml.card(uuid)
        except DeviceError as error:
            logger.warning("%s", error)


@contextmanager
def _locked(config: KeeperConfig) -> Iterator[None]:
    """Be the only keeper of this state directory and of this socket."""
    prepare_state_dir(config.state_dir)
    with suppress(OSError):  # `listen` will say what is wrong with it
        config.socket.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with locked(config.state_dir / LOCK_NAME), locked(Path(f"{config.socket}.lock")):
        yield


@contextmanager
def _stop_on_signals(mailbox: Mailbox) -> Iterator[None]:
    numbers = [
        each for each in _STOPPING if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, lambda *_: mailbox.ask_to_stop()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell_systemd(state: str) -> None:
    """Say where we are, if systemd asked for it (Type=notify)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(state.encode(), f"\0{address[1:]}" if address[0] == "@" else address)
