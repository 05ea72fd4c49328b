from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest

from optimizer.devices.cpu_package import RaplCpu
from optimizer.devices.gpu import DeviceError, Gpu
from optimizer.telemetry import NOT_MEASURED, EnergySource


def package(powercap: Path, folder: str, name: str, energy_uj: int, range_uj: int = 1_000_000_000) -> Path:
    zone = powercap / folder
    zone.mkdir()
    (zone / "name").write_text(f"{name}\n")
    (zone / "max_energy_range_uj").write_text(f"{range_uj}\n")
    (zone / "energy_uj").write_text(f"{energy_uj}\n")
    return zone / "energy_uj"


def test_packages_are_summed_and_parts_left_out(tmp_path: Path) -> None:
    first = package(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    second = package(tmp_path, "intel-rapl:1", "package-1", 7_000_000)
    part = package(tmp_path, "intel-rapl:0:0", "core", 1_000_000)
    board = package(tmp_path, "intel-rapl:2", "psys", 1_000_000)
    cpu = RaplCpu(tmp_path)
    assert cpu.read().energy.joules == 0.0
    for counter, energy_uj in (
        (first, 6_500_000),
        (second, 7_250_000),
        (part, 9_000_000),
        (board, 9_000_000),
    ):
        counter.write_text(str(energy_uj))
    energy = cpu.read().energy
    assert energy.joules == pytest.approx(1.75)
    assert energy.source is EnergySource.RAPL
    assert cpu.why_not_measured is None


def test_the_counter_wraps_around(tmp_path: Path) -> None:
    counter = package(tmp_path, "intel-rapl:0", "package-0", 9_000_000, range_uj=10_000_000)
    cpu = RaplCpu(tmp_path)
    cpu.read()
    counter.write_text("500000")
    assert cpu.read().energy.joules == pytest.approx(1.5)


def test_without_rapl_energy_is_not_measured_and_the_reason_is_given(tmp_path: Path) -> None:
    cpu = RaplCpu(tmp_path)
    assert cpu.why_not_measured is None
    assert cpu.read().energy == NOT_MEASURED
    assert str(tmp_path) in (cpu.why_not_measured or "")
    assert cpu.read().energy == NOT_MEASURED


def test_a_counter_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    counter = package(tmp_path, "intel-rapl:0", "package-0", 1)
    read_text = Path.read_text

    def guarded(path: Path, *args: object, **kwargs: object) -> str:
        if path == counter:
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path)

    cpu = RaplCpu(tmp_path)
    with patch.object(Path, "read_text", guarded):
        assert cpu.read().energy == NOT_MEASURED
    assert f"{counter} may not be read" in (cpu.why_not_measured or "")


def test_a_counter_that_disappears_or_breaks_never_raises(tmp_path: Path) -> None:
    counter = package(tmp_path, "intel-rapl:0", "package-0", 1)
    cpu = RaplCpu(tmp_path)
    cpu.read()
    counter.write_text("garbage")
    assert cpu.read().energy == NOT_MEASURED
    assert "cannot be read" in (cpu.why_not_measured or "")


def test_it_has_no_clock(tmp_path: Path) -> None:
    cpu: Gpu = RaplCpu(tmp_path)
    assert (cpu.uuid, cpu.simulated, cpu.sm_clocks_mhz) == ("cpu-package", False, ())
    cpu.set_sm_clock_mhz(None)
    with pytest.raises(DeviceError, match="batch limit only"):
        cpu.set_sm_clock_mhz(1000)
