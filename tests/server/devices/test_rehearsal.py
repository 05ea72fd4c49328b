from __future__ import annotations

import ctypes.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from nvml_rack import Rack, make_card, make_rack, nvml_here

from optimizer.devices.nvml.library import Nvml
from optimizer.devices.simulated import SimulatedGpu
from optimizer.twin.profile import load_profile
from server.config import Settings
from server.devices import rehearsal
from server.devices.rehearsal import RehearsalGpu, open_standin_card, rehearse
from server.errors import ConfigError

PROFILE = load_profile("v100")


@pytest.fixture
def rack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rack]:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with make_rack(tmp_path, make_card("volta", settle_s=0.0)) as rack, nvml_here(rack):
        monkeypatch.setattr(rehearsal, "LIBRARY", str(rack.library))
        yield rack


@pytest.fixture
def gpu(rack: Rack) -> Iterator[RehearsalGpu]:
    served, gpu = rehearse(Settings(repository=Path("m"), device="0"), PROFILE)
    assert served.gpu is gpu
    yield gpu
    served.close()


def test_a_batch_takes_what_the_profile_gives_at_the_clock_that_nvml_reports(
    rack: Rack, gpu: RehearsalGpu
) -> None:
    physics = PROFILE.model("resnet50")
    with Nvml() as nvml:
        card = nvml.card_at(0)
        for clock_mhz in (1380, 705):
            card.lock_sm_clock(clock_mhz)
            assert gpu.execute("resnet50", 16) == pytest.approx(physics.batch_s(16, clock_mhz))


def test_a_batch_is_work_on_the_card_and_its_energy_is_called_simulated(
    rack: Rack, gpu: RehearsalGpu
) -> None:
    gpu.read()
    assert rack.card(0).idle
    gpu.execute("resnet50", 128)
    busy = rack.card(0)
    assert not busy.idle
    assert busy.power_w > rack.card(0).default_power_limit_w / 10
    assert gpu.read().energy.source == "simulated"
    assert gpu.simulated


class RecordingCard:
    def __init__(self) -> None:
        self.booked_s: list[float] = []

    def run(self, seconds: float, utilisation: float) -> None:
        assert 0.0 <= utilisation <= 1.0
        self.booked_s.append(seconds)

    def sm_clock_mhz(self) -> int:
        return 1380


def test_no_more_work_is_booked_than_a_batch_takes() -> None:
    """Else batches that follow each other without a pause would keep the card busy longer than they last."""
    card = RecordingCard()
    seconds = RehearsalGpu(SimulatedGpu(PROFILE, clock=float), card, PROFILE).execute("resnet50", 8)
    assert sum(card.booked_s) == pytest.approx(seconds)


def test_when_the_clock_cannot_be_read_the_last_one_counts(rack: Rack, gpu: RehearsalGpu) -> None:
    rack.fail("nvmlDeviceGetClockInfo", 999)
    assert gpu.execute("resnet50", 1) == PROFILE.model("resnet50").batch_s(1, PROFILE.boost_clock_mhz)


def test_a_model_that_the_profile_lacks_is_a_key_error(gpu: RehearsalGpu) -> None:
    with pytest.raises(KeyError):
        gpu.execute("no-such-network", 1)


def test_another_library_is_refused(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "LIBRARY", ctypes.util.find_library("c"))
    with pytest.raises(ConfigError, match="a simulated engine must not govern a real GPU"):
        rehearse(Settings(repository=Path("m"), device="0"), PROFILE)


def test_a_card_that_the_stand_in_lacks_is_refused(rack: Rack) -> None:
    with Nvml(), pytest.raises(ConfigError, match="has no card GPU-none"):
        open_standin_card("GPU-none")


@pytest.mark.parametrize("code", [15, 3])
def test_a_failure_that_is_rehearsed_is_not_met_by_the_rehearsal_itself(rack: Rack, code: int) -> None:
    """Only a keeper finds GPUs by UUID: that it cannot is its affair, and no reason not to serve."""
    rack.fail("nvmlDeviceGetHandleByUUID", code)
    served, gpu = rehearse(Settings(repository=Path("m"), device="0"), PROFILE)
    assert gpu.execute("resnet50", 1) > 0.0
    served.close()
