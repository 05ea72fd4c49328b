"""On simulated cards, with an nvidia-smi that says what it is told to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from nvml_rack import Rack, make_card, make_rack, nvml_here
from rack_time import RackTime

from bench.readings.__main__ import main
from bench.readings.energy_check import EnergyCheck, check_energy
from bench.readings.nvidia_smi import NoNvidiaSmi, ask_nvidia_smi
from optimizer.devices.nvml.failures import NvmlFailure
from optimizer.devices.nvml.library import Nvml, PowerField

IDLE = "Stand-in H100 NVL, 580.0-standin, 345, 2619, 38, 61.00, 400.00, 400.00, 200.00, 400.00"


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    with make_rack(tmp_path, make_card("hopper"), make_card("pascal", 1)) as rack, nvml_here(rack):
        yield rack


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory in which programs are found, but for the shell."""
    directory = tmp_path / "programs"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def put_nvidia_smi(path: Path, answer: str, code: int = 0) -> None:
    script = path / "nvidia-smi"
    script.write_text(f"#!/bin/sh\necho '{answer}'\nexit {code}\n")
    script.chmod(0o755)


def test_a_gpu_that_is_read_as_nvidia_smi_reads_it(
    rack: Rack, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_nvidia_smi(path, f"{rack.uuid(0)}, {IDLE}")
    code = main(["--seconds", "0.6", "--json", str(tmp_path / "report.json")])
    printed = capsys.readouterr().out
    assert printed.startswith("The NVML library is the stand-in")
    report = json.loads((tmp_path / "report.json").read_text())
    assert [figure["figure"] for figure in report["figures"] if not figure["agrees"]] == []
    assert report["simulated"] is True
    assert report["energy"]["counted_j"] > 0.0
    share = report["energy"]["difference_share"]
    assert code == (0 if abs(share) <= 0.05 else 1)
    assert not rack.set_history()


@pytest.mark.parametrize(
    ("before", "after", "figure"),
    [
        ("580.0-standin", "570.1", "driver_version"),
        (" 345,", " 1785,", "clocks.sm"),
        ("61.00", "350.00", "power.draw"),
        ("400.00, 200.00", "[N/A], 200.00", "power.default_limit"),
    ],
)
def test_a_figure_that_differs(
    rack: Rack, path: Path, capsys: pytest.CaptureFixture[str], before: str, after: str, figure: str
) -> None:
    put_nvidia_smi(path, f"{rack.uuid(0)}, {IDLE.replace(before, after)}")
    assert main(["--seconds", "0"]) == 1
    differing = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("DIFF")]
    assert figure in differing
    assert set(differing) <= {figure, "energy"}  # no time passed, so no energy was counted


def test_what_neither_knows_agrees(rack: Rack, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rack.fail("nvmlDeviceGetTemperature", 3)
    put_nvidia_smi(path, f"{rack.uuid(0)}, {IDLE.replace(' 38,', ' [N/A],')}")
    main(["--seconds", "0"])
    assert "agrees   temperature.gpu      None; nvidia-smi None" in capsys.readouterr().out


def test_without_nvidia_smi(rack: Rack, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 1
    assert "nvidia-smi cannot be run" in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "code"), [("no devices were found", 6), ("a, b", 0)])
def test_an_nvidia_smi_that_fails(path: Path, answer: str, code: int) -> None:
    put_nvidia_smi(path, answer, code)
    with pytest.raises(NoNvidiaSmi, match=f"ended with {code}: {answer}"):
        ask_nvidia_smi("GPU-1")


def test_energy_counted_two_ways(rack: Rack) -> None:
    rack.keep_busy(0, 3600.0, 0.5)  # cool enough not to slow down
    time = RackTime(rack)
    time.pass_by(10.0)
    with Nvml() as nvml:
        check = check_energy(nvml.card_at(0), 60.0, clock=time, sleep=time.pass_by)
    assert check.field is PowerField.AVERAGE
    assert check.seconds == pytest.approx(60.0)
    assert check.counted_j == pytest.approx(60.0 * rack.card(0).power_w, rel=0.01)
    assert check.difference_share == pytest.approx(0.0, abs=0.01)


def test_a_card_without_counter_cannot_be_checked(rack: Rack) -> None:
    with Nvml() as nvml, pytest.raises(NvmlFailure, match="NOT_SUPPORTED"):
        check_energy(nvml.card_at(1), 1.0)


def test_no_difference_without_figures() -> None:
    assert EnergyCheck(1.0, 0.0, 1.0, PowerField.USAGE).difference_share is None
    assert EnergyCheck(1.0, 1.0, None, PowerField.USAGE).difference_share is None
    assert EnergyCheck(1.0, 100.0, 97.0, PowerField.USAGE).difference_share == pytest.approx(-0.03)
