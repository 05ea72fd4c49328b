"""Which device an engine runs on: what `--device` means, given where the engine can run."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from optimizer.devices.cpu_package import RaplCpu
from server.config import AUTO, CPU, Settings
from server.devices.served import ServedDevice
from server.engines.registry import Where
from server.errors import ConfigError

VISIBLE = "CUDA_VISIBLE_DEVICES"


def choose_device(
    settings: Settings, where: Where, environment: MutableMapping[str, str] = os.environ
) -> ServedDevice:
    """Open the device that the settings name for an engine that runs `where`.

    CUDA is shown that GPU alone, by its UUID: CUDA and NVML count GPUs in orders of their own, and to govern
    one while another works would be of no use to anybody.

    Raises:
        ConfigError: there is no such device, or the engine cannot run there.
    """
    if where == "cpu" and settings.device not in (AUTO, CPU):
        raise ConfigError(
            f"--engine {settings.engine} runs on the CPU: --device {settings.device} would govern a GPU that "
            "does none of the work. Leave --device out, or choose an engine that runs on the GPU"
        )
    if where == "gpu" and settings.device == CPU:
        raise ConfigError(f"--engine {settings.engine} runs on a GPU, not on --device cpu: name a GPU")
    if where == "cpu" or settings.device == CPU:
        return _cpu(where, environment)
    try:
        return _gpu(settings, environment)
    except ConfigError:
        if where == "gpu" or settings.device != AUTO:
            raise
        return _cpu(where, environment)


def _cpu(where: Where, environment: MutableMapping[str, str]) -> ServedDevice:
    if where == "either":
        environment[VISIBLE] = ""
    return ServedDevice(RaplCpu(), is_gpu=False)


def _gpu(settings: Settings, environment: MutableMapping[str, str]) -> ServedDevice:
    # Whoever has no GPU to govern need not have nvidia-ml-py look for its library either.
    from server.devices.nvidia import open_nvidia

    served = open_nvidia(settings)
    environment[VISIBLE] = served.gpu.uuid
    return served
