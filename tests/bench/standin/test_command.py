from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from nvml_rack import Rack, library_directory

from bench.standin.__main__ import main
from bench.standin.build import LIBRARY
from bench.standin.control import ENVIRONMENT


@pytest.fixture(autouse=True)
def built(tmp_path: Path) -> None:
    shutil.copy(library_directory() / LIBRARY, tmp_path)


def environment_from(printed: str) -> dict[str, str]:
    return dict(shlex.split(line)[1].split("=", 1) for line in printed.splitlines())


def test_make_prints_what_a_process_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "with a space"
    assert main(["make", str(directory), "--card", "hopper", "--card", "pascal"]) == 0
    environment = environment_from(capsys.readouterr().out)
    program = (
        "import pynvml as p; p.nvmlInit();"
        "print([p.nvmlDeviceGetName(p.nvmlDeviceGetHandleByIndex(i)) for i in range(p.nvmlDeviceGetCount())])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "['Stand-in H100 NVL', 'Stand-in P100-PCIE-16GB']"


def test_show_tells_what_is_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["make", str(tmp_path)])
    environment = environment_from(capsys.readouterr().out)
    main(["show", str(tmp_path)])
    assert "as it was" in capsys.readouterr().out
    with Rack.open(environment[ENVIRONMENT], tmp_path) as rack:
        rack.set_power_limit(0, 200.0)
    assert main(["show", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "changed: power limit 200 W" in shown
    assert "simulated" in shown


def test_a_second_rack_in_the_same_place_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["make", str(tmp_path)]) == 0
    assert main(["make", str(tmp_path)]) == 1
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["show"], ["make", "--card", "voodoo"]])
def test_what_cannot_be_done_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main([arguments[0], str(tmp_path), *arguments[1:]]) == 1
    assert "error: " in capsys.readouterr().err


def test_looking_where_no_rack_is_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(tmp_path / "none")]) == 1
    assert "there is no rack in" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
