from __future__ import annotations

from pathlib import Path

import pytest
from nvml_rack import Rack, make_card, make_rack, nvml_here

from server.config import Settings
from server.devices.choice import choose_device
from server.devices.served import ServedDevice
from server.engines.registry import Where
from server.errors import ConfigError


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    with make_rack(tmp_path, make_card("volta"), make_card("ampere", 1)) as rack, nvml_here(rack):
        yield rack


def choose(where: Where, environment: dict[str, str], device: str = "auto") -> ServedDevice:
    return choose_device(Settings(repository=Path("m"), device=device), where, environment)


@pytest.fixture(autouse=True)
def all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_an_engine_on_the_gpu_is_shown_the_gpu_that_is_governed_and_no_other(rack: Rack) -> None:
    for device, card in (("auto", 0), ("1", 1), (rack.uuid(1), 1)):
        environment: dict[str, str] = {}
        served = choose("gpu", environment, device)
        assert served.gpu.uuid == rack.uuid(card)
        assert environment == {"CUDA_VISIBLE_DEVICES": rack.uuid(card)}
        served.close()


def test_an_engine_that_runs_on_either_is_kept_off_the_gpu_when_the_cpu_is_asked_for(rack: Rack) -> None:
    environment: dict[str, str] = {}
    assert choose("either", environment, "cpu").gpu.uuid == "cpu-package"
    assert environment == {"CUDA_VISIBLE_DEVICES": ""}
    served = choose("either", {})
    assert served.gpu.uuid == rack.uuid(0)
    served.close()


def test_an_engine_that_needs_a_gpu_gets_no_cpu(rack: Rack) -> None:
    with pytest.raises(ConfigError, match="runs on a GPU, not on --device cpu"):
        choose("gpu", {}, "cpu")


def test_a_gpu_that_is_not_there_is_an_error_when_it_is_named(rack: Rack) -> None:
    for where in ("gpu", "either"):
        with pytest.raises(ConfigError, match="--device 7"):
            choose(where, {}, "7")


def test_without_nvml_only_what_can_run_on_the_cpu_runs(rack: Rack) -> None:
    rack.fail("nvmlInit", 9)
    with pytest.raises(ConfigError, match="DRIVER_NOT_LOADED"):
        choose("gpu", {})
    assert choose("either", {}).gpu.uuid == "cpu-package"


def test_without_control_a_gpu_is_read_and_not_set(rack: Rack) -> None:
    served = choose("gpu", {})
    served.gpu.read()
    assert served.gpu.read().energy.joules is not None
    assert served.gpu.sm_clocks_mhz == ()
    served.close()
    assert rack.set_history() == ()
