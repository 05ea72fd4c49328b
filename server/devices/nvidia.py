"""A GPU through NVML, and its clock through the keeper: `--device`, `--control` and their companions."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

from optimizer.devices.gpu import DeviceError, DeviceLost
from optimizer.devices.keeper.client import KeeperClient
from optimizer.devices.nvml.discovery import select_gpu
from optimizer.devices.nvml.gpu import NvmlGpu
from optimizer.devices.nvml.library import Card, Nvml
from server.config import AUTO, Settings
from server.devices.patience import within
from server.devices.served import ServedDevice
from server.errors import ConfigError

KEEPER_PAUSES_S = (0.0, 0.2, 0.4, 0.8)
"""Before each question to a keeper, which may be being started at the same time."""

OPEN_LIMIT_S = 60.0
"""How long NVML may take to open: where the driver is not kept loaded, seconds for each GPU."""
ASK_LIMIT_S = 5.0

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
        ConfigError: there is no NVML, or no such GPU, or NVML does not answer.
    """
    nvml = Nvml()
    card = _find_card(nvml, settings.device)
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
    return _served(gpu, nvml, keeper)


def _find_card(nvml: Nvml, device: str) -> Card:
    """Open NVML and find a GPU; a driver that hangs is not waited for. Raises ConfigError."""
    try:
        return within(OPEN_LIMIT_S, lambda: _open_card(nvml, device))
    except TimeoutError:
        raise ConfigError(
            f"--device {device}: NVML has not answered for {OPEN_LIMIT_S:g} s: see whether `nvidia-smi` "
            "does, and look at `dmesg` for NVRM lines"
        ) from None
    except DeviceError as error:
        nvml.close()
        raise ConfigError(f"--device {device}: {error}") from error


def _open_card(nvml: Nvml, device: str) -> Card:
    nvml.open()
    return select_gpu(nvml, None if device == AUTO else device, os.environ.get("CUDA_VISIBLE_DEVICES"))


def _served(gpu: NvmlGpu, nvml: Nvml, keeper: KeeperClient | None) -> ServedDevice:
    return ServedDevice(
        gpu,
        control=keeper is not None,
        failures=lambda: nvml.failures,
        lost=lambda: bool(gpu.lost),
        trouble=lambda: keeper.trouble if keeper is not None else "",
        close=gpu.close,
    )


def _warn_of_company(card: Card) -> None:
    """Say who else computes on the GPU."""
    try:
        others = [pid for pid in within(ASK_LIMIT_S, card.processes) if pid != os.getpid()]
    except DeviceError as error:
        logger.info("who else computes on %s is not known: %s", card.uuid, error)
        return
    except TimeoutError:
        logger.warning("%s has not said within %g s who computes on it: it may hang", card.uuid, ASK_LIMIT_S)
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
        try:
            answered = keeper.bounds() is not None
        except DeviceLost:  # it is said when the clock is to be governed
            return
        if answered or time.monotonic() - asked_s > _HANGS_S:
            return
