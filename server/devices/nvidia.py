"""A GPU through NVML, and its clock through the keeper: `--device`, `--control` and their companions."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

from optimizer.devices.gpu import DeviceError
from optimizer.devices.keeper.client import KeeperClient
from optimizer.devices.nvml.discovery import select_gpu
from optimizer.devices.nvml.gpu import NvmlGpu
from optimizer.devices.nvml.library import Card, Nvml
from server.config import AUTO, Settings
from server.devices.served import ServedDevice
from server.errors import ConfigError

KEEPER_PAUSES_S = (0.0, 0.2, 0.4, 0.8)
"""Before each question to a keeper, which may be being started at the same time."""

_HANGS_S = 1.0

logger = logging.getLogger("boulton.device")


def open_nvidia(
    settings: Settings, *, simulated: bool = False, sleep: Callable[[float], None] = time.sleep
) -> ServedDevice:
    """Open NVML and find the GPU that the settings name; with `--control`, ask the keeper for it.

    Without the keeper the clock is left alone until there is one: that is no error.

    Args:
        settings: what was asked for.
        simulated: whether the library is the stand-in, whose readings are modelled.
        sleep: waits for a keeper that is being started.

    Raises:
        ConfigError: there is no NVML, or no such GPU.
    """
    nvml = Nvml()
    try:
        nvml.open()
        wanted = None if settings.device == AUTO else settings.device
        card = select_gpu(nvml, wanted, os.environ.get("CUDA_VISIBLE_DEVICES"))
    except DeviceError as error:
        nvml.close()
        raise ConfigError(f"--device {settings.device}: {error}") from error
    _warn_of_company(card)
    keeper = KeeperClient(settings.keeper, card.uuid) if settings.control else None
    if keeper is not None:
        _await(keeper, sleep)
    gpu = NvmlGpu(
        card,
        keeper,
        memory_clock_mhz=settings.memory_clock_mhz,
        power_limit_w=settings.power_limit_w,
        reopen=lambda: _find_again(nvml, card),
        simulated=simulated,
    )
    return ServedDevice(
        gpu,
        control=settings.control,
        failures=lambda: nvml.failures,
        lost=lambda: bool(gpu.lost),
        trouble=lambda: keeper.trouble if keeper is not None else "",
        close=gpu.close,
    )


def _warn_of_company(card: Card) -> None:
    """Say who else computes on the GPU; nobody does when that cannot be found out."""
    try:
        others = [pid for pid in card.processes() if pid != os.getpid()]
    except DeviceError:
        return
    if others:
        logger.warning(
            "%s is shared with %s: its energy is counted together, and a clock set here is set for all",
            card.uuid,
            ", ".join(f"process {pid}" for pid in others),
        )


def _find_again(nvml: Nvml, card: Card) -> None:
    nvml.reopen()
    nvml.find_again(card)


def _await(keeper: KeeperClient, sleep: Callable[[float], None]) -> None:
    """Wait a moment for a keeper that is being started; one that hangs or comes later is found later."""
    for pause_s in KEEPER_PAUSES_S:
        sleep(pause_s)
        asked_s = time.monotonic()
        if keeper.bounds() is not None or time.monotonic() - asked_s > _HANGS_S:
            return
