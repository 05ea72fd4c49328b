from __future__ import annotations

from pathlib import Path

import pytest
from nvml_rack import make_card, make_rack, nvml_here

pytest.importorskip("torch", reason="training needs the extra torch")

from bench.train_energy import devices
from bench.train_energy.devices import cpu_trainer, gpu_trainer, indices, spell_out
from optimizer.devices.cpu_package import RaplCpu
from optimizer.devices.gpu import DeviceError
from optimizer.devices.nvml.library import Nvml
from optimizer.telemetry import NOT_MEASURED, EnergySource
from server.errors import ConfigError


@pytest.mark.parametrize(
    ("gpus", "meant"),
    [(0, ("cpu",)), (1, ("cuda:0",)), (3, ("cuda:0", "cuda:1", "cuda:2", "cuda:0+1+2"))],
)
def test_auto_is_every_gpu_alone_and_all_together(gpus: int, meant: tuple[str, ...]) -> None:
    assert spell_out(["auto"], gpus) == meant


def test_a_device_named_twice_is_one() -> None:
    assert spell_out(["cpu", "auto", "cuda:0"], 1) == ("cpu", "cuda:0")


@pytest.mark.parametrize("name", ["gpu", "cuda", "cuda:", "cuda:0+", "cuda:-1", "cuda:0,1", "CPU"])
def test_a_misspelt_device_is_told_how(name: str) -> None:
    with pytest.raises(ConfigError, match=r"cuda:0\+1"):
        spell_out([name], 2)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="there are 1 GPUs"):
        spell_out(["cuda:0+1"], 1)
    with pytest.raises(ConfigError, match="named twice"):
        spell_out(["cuda:0+0"], 1)


def test_indices() -> None:
    assert (indices("cpu"), indices("cuda:2"), indices("cuda:1+0")) == ((), (2,), (1, 0))


def test_a_cpu_without_counter_says_why(tmp_path: Path) -> None:
    trainer = cpu_trainer(RaplCpu(tmp_path))
    assert "no RAPL package" in trainer.why_not_measured
    trainer.energy.start()
    assert trainer.energy.stop() == NOT_MEASURED


def test_a_cpu_with_a_counter_is_measured(tmp_path: Path) -> None:
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    for name, text in (("name", "package-0"), ("max_energy_range_uj", "1000000"), ("energy_uj", "900000")):
        (package / name).write_text(text, encoding="utf-8")
    trainer = cpu_trainer(RaplCpu(tmp_path))
    assert trainer.why_not_measured == ""
    trainer.energy.start()
    (package / "energy_uj").write_text("400000", encoding="utf-8")  # wrapped
    energy = trainer.energy.stop()
    assert energy.joules == pytest.approx(0.5)
    assert energy.source is EnergySource.RAPL


def test_gpus_without_nvml_train_unmeasured_and_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(nvml: Nvml, gpus: tuple[int, ...]) -> None:
        raise DeviceError("no NVML here")

    monkeypatch.setattr(devices, "_cards", refuse)
    with devices.open_trainer("cuda:0+1") as trainer:
        assert (trainer.gpus, trainer.why_not_measured) == ((0, 1), "no NVML here")
        trainer.energy.start()
        trainer.use.start()
        assert (trainer.energy.stop(), trainer.use.stop()) == (NOT_MEASURED, None)


def test_several_gpus_are_measured_as_one(tmp_path: Path) -> None:
    with (
        make_rack(tmp_path, make_card("ampere"), make_card("hopper", 1)) as rack,
        nvml_here(rack),
        Nvml() as nvml,
    ):
        cards = [nvml.card(rack.uuid(index)) for index in range(2)]
        trainer = gpu_trainer("cuda:0+1", (0, 1), cards, simulated=nvml.simulated)
        rack.stop_clock()
        trainer.energy.start()
        before = [rack.card(index).energy_j for index in range(2)]
        rack.skip(60.0)
        after = [rack.card(index).energy_j for index in range(2)]
        energy = trainer.energy.stop()
        trainer.close()
    assert energy.joules == pytest.approx(sum(after) - sum(before), abs=2.0)
    assert energy.source is EnergySource.SIMULATED
