"""What the governor is told before anything ran: `--predictor`, for the network that it governs.

Only a predictor of the device at hand is taken, known by its name; one that was fitted to a simulated device
is refused on a real one. What was learned before from batches that ran, if anything was, wins over it.
"""

from __future__ import annotations

import logging
import platform
from dataclasses import dataclass
from pathlib import Path

from optimizer.devices.cpu_package import RaplCpu
from optimizer.devices.gpu import DeviceError, Gpu
from optimizer.foresight import check_device, prior_of, steps_of_file
from optimizer.layers.dataset import DatasetError
from optimizer.layers.fusion import Step
from optimizer.layers.predictor import LayerPredictor
from optimizer.layers.saved import load_predictor
from optimizer.models.prior import Prior
from optimizer.operating_point import OperatingGrid
from optimizer.twin.profile import load_profile
from server.config import Settings
from server.errors import ConfigError

CPU_INFO = Path("/proc/cpuinfo")

logger = logging.getLogger("boulton.governor")


@dataclass(frozen=True, slots=True)
class Foresight:
    """Predicts one network on one device, for any grid of settings.

    Args:
        predictor: of that device.
        steps: of the network.
    """

    predictor: LayerPredictor
    steps: tuple[Step, ...]

    def __call__(self, grid: OperatingGrid) -> Prior | None:
        """Return the prior; None, after a line in the log, where it says nothing of the grid's clocks."""
        try:
            return prior_of(self.predictor, self.steps, grid.batch_limits[-1], grid.sm_clocks_mhz)
        except ValueError as error:
            logger.warning("the governor starts without a prediction: %s", error)
            return None


def foresee(settings: Settings, device: Gpu, network: Path) -> Foresight:
    """Read the predictor and the network that the settings name; slow.

    Raises:
        ConfigError: one of them cannot be used, or the predictor is of another device.
    """
    simulated = settings.engine == "simulated"
    try:
        predictor = load_predictor(str(settings.predictor))
        check_device(predictor, _name(settings, device), simulated=simulated)
        steps = steps_of_file(network)
    except (DatasetError, DeviceError, ValueError) as error:
        raise ConfigError(f"--predictor {settings.predictor}: {error}") from error
    logger.info(
        "until it has learned, the governor goes by what is predicted for %s on %s%s",
        network,
        predictor.provenance["device"],
        " (simulated)" if predictor.simulated else "",
    )
    return Foresight(predictor, steps)


def _name(settings: Settings, device: Gpu) -> str:
    """Return what calibrations call the device."""
    if settings.engine == "simulated":
        return load_profile(str(settings.gpu)).name
    return _processor() if isinstance(device, RaplCpu) else _card(device.uuid)


def _processor() -> str:
    lines = CPU_INFO.read_text(encoding="utf-8").splitlines() if CPU_INFO.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _card(uuid: str) -> str:
    """Ask NVML what a GPU is called. Raises `DeviceError`."""
    from optimizer.devices.nvml.discovery import select_gpu
    from optimizer.devices.nvml.library import Nvml

    nvml = Nvml()
    nvml.open()
    try:
        return select_gpu(nvml, uuid, None).name()
    finally:
        nvml.close()
