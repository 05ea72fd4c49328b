"""The CPU as a device: no clock to set, energy from RAPL where the kernel lets us read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from optimizer.devices.gpu import DeviceError
from optimizer.telemetry import NOT_MEASURED, DeviceReading, Energy, EnergySource

POWERCAP = Path("/sys/class/powercap")


@dataclass(slots=True)
class _Package:
    """One energy counter in microjoules that wraps at `range_uj`."""

    counter: Path
    range_uj: int
    last_uj: int

    def advance(self) -> int:
        """Return the microjoules since the previous call."""
        now_uj = int(self.counter.read_text())
        used_uj = now_uj - self.last_uj
        self.last_uj = now_uj
        return used_uj if used_uj >= 0 else used_uj + self.range_uj


class RaplCpu:
    """Implements `Gpu` for CPU serving: whole-package energy, whoever used it, when RAPL can be read.

    Args:
        powercap: where the kernel shows its power-capping devices.
    """

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._powercap = powercap
        self._packages: list[_Package] | None = None
        self._why_not_measured: str | None = None

    @property
    def uuid(self) -> str:
        """Always `cpu-package`."""
        return "cpu-package"

    @property
    def simulated(self) -> bool:
        """Whether the readings are modelled: never."""
        return False

    @property
    def sm_clocks_mhz(self) -> tuple[int, ...]:
        """Empty: the clock is the operating system's."""
        return ()

    @property
    def why_not_measured(self) -> str | None:
        """Why energy is not measured and what to do about it; None while it is, and before the first read."""
        return self._why_not_measured

    def set_sm_clock_mhz(self, clock_mhz: int | None) -> None:
        """Accept None; raises DeviceError for any clock."""
        if clock_mhz is not None:
            raise DeviceError(
                f"cpu-package has no SM clock to set to {clock_mhz} MHz; govern the batch limit only"
            )

    def read(self) -> DeviceReading:
        """Return the energy since the previous call; the first call opens the interval: its energy is 0."""
        if self._why_not_measured is not None:
            return DeviceReading()
        try:
            return DeviceReading(energy=self._energy())
        except PermissionError as error:
            how = "run with permission to read it, e.g. chmod a+r on it"
            self._why_not_measured = f"{error.filename} may not be read: {how}"
        except (OSError, ValueError) as error:
            self._why_not_measured = f"RAPL under {self._powercap} cannot be read: {error}"
        return DeviceReading()

    def _energy(self) -> Energy:
        if self._packages is None:
            self._packages = [
                _open(folder) for folder in sorted(self._powercap.glob("intel-rapl:*")) if _whole(folder)
            ]
        if not self._packages:
            self._why_not_measured = (
                f"no RAPL package under {self._powercap} (a virtual machine, or no driver)"
            )
            return NOT_MEASURED
        microjoules = sum(package.advance() for package in self._packages)
        return Energy(microjoules / 1e6, EnergySource.RAPL)


def _whole(folder: Path) -> bool:
    """Whether this is a package: parts (`intel-rapl:0:1`) count in it, and `psys` is the whole board."""
    return folder.name.count(":") == 1 and (folder / "name").read_text().startswith("package")


def _open(folder: Path) -> _Package:
    counter = folder / "energy_uj"
    return _Package(counter, int((folder / "max_energy_range_uj").read_text()), int(counter.read_text()))
