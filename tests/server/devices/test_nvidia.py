"""A GPU of the stand-in, with `--control`: found, lent by a keeper or not, given back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from nvml_rack import Rack, make_rack, nvml_here

from optimizer.devices.gpu import DeviceLost
from optimizer.devices.nvml.actuator import ClockBounds, GpuSetting
from server.config import Settings
from server.devices import nvidia
from server.devices.nvidia import KEEPER_PAUSES_S, open_nvidia
from server.errors import ConfigError

HANGS_S = 2.0
"""Long beside the limits that are set here; a call that sleeps in C cannot be woken."""


class FakeKeeper:
    """Answers from the n-th question on."""

    trouble = "no keeper at k.sock"
    disturbances = 0
    permitted = ClockBounds(500, 1000)

    def __init__(self, answers_from: float) -> None:
        self.answers_from = answers_from
        self.questions = 0
        self.settings: list[GpuSetting] = []
        self.closed = False

    def bounds(self) -> ClockBounds | None:
        self.questions += 1
        return self.permitted if self.questions >= self.answers_from else None

    def set(self, setting: GpuSetting) -> None:
        self.settings.append(setting)

    def release(self) -> None:
        self.settings.append(GpuSetting())

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def rack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rack]:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with make_rack(tmp_path) as rack, nvml_here(rack):
        yield rack


def settings(**given: object) -> Settings:
    return Settings(repository=Path("m"), device="0", control=True, **given)


def with_keeper(monkeypatch: pytest.MonkeyPatch, keeper: FakeKeeper) -> None:
    monkeypatch.setattr(nvidia, "KeeperClient", lambda _path, _uuid: keeper)


def test_clocks_within_the_keeper_s_bounds_are_legal(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = FakeKeeper(1)
    with_keeper(monkeypatch, keeper)
    served = open_nvidia(settings())
    clocks = served.gpu.sm_clocks_mhz
    assert clocks
    assert min(clocks) >= 500
    assert max(clocks) <= 1000
    served.gpu.set_sm_clock_mhz(clocks[0])
    assert keeper.settings == [GpuSetting(clocks[0])]
    served.close()
    assert keeper.closed


def test_a_keeper_that_is_being_started_is_waited_for(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    with_keeper(monkeypatch, FakeKeeper(3))
    waited: list[float] = []
    served = open_nvidia(settings(), sleep=waited.append)
    assert served.gpu.sm_clocks_mhz
    assert waited == list(KEEPER_PAUSES_S[:3])
    served.close()


def test_a_keeper_that_hangs_is_asked_once(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = FakeKeeper(8)
    with_keeper(monkeypatch, keeper)
    monkeypatch.setattr(nvidia, "_HANGS_S", -1.0)
    open_nvidia(settings(), sleep=lambda _: None).close()
    assert keeper.questions == 1


def test_without_a_keeper_the_clock_is_left_alone_until_there_is_one_and_that_is_said_once(
    rack: Rack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = FakeKeeper(8)
    with_keeper(monkeypatch, keeper)
    waited: list[float] = []
    served = open_nvidia(settings(), sleep=waited.append)
    assert waited == list(KEEPER_PAUSES_S)
    assert served.control
    for _ in range(3):
        assert served.gpu.sm_clocks_mhz == ()
        served.gpu.read()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "its clock is left alone: no keeper at k.sock; meanwhile the batch size alone" in caplog.text
    assert served.gpu.sm_clocks_mhz
    served.close()
    assert keeper.closed


def test_fixed_memory_clock_and_power_limit_go_along_with_every_clock(
    rack: Rack, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = FakeKeeper(1)
    keeper.permitted = ClockBounds(500, 1000, 150.0, 250.0, (1215,))
    with_keeper(monkeypatch, keeper)
    served = open_nvidia(settings(memory_clock_mhz=1215, power_limit_w=200.0))
    clock = served.gpu.sm_clocks_mhz[0]
    served.gpu.set_sm_clock_mhz(clock)
    assert keeper.settings == [GpuSetting(clock, 1215, 200.0)]
    served.close()


def test_company_on_the_gpu_is_said(
    rack: Rack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with_keeper(monkeypatch, FakeKeeper(1))
    open_nvidia(settings()).close()
    assert caplog.text == ""
    rack.set_processes(0, [1, 4711])
    open_nvidia(settings()).close()
    assert "is shared with process 1, process 4711" in caplog.text


def test_whether_there_is_company_need_not_be_known(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    with_keeper(monkeypatch, FakeKeeper(1))
    rack.fail("nvmlDeviceGetComputeRunningProcesses", 3)
    served = open_nvidia(settings())
    assert served.gpu.sm_clocks_mhz
    assert ("nvmlDeviceGetComputeRunningProcesses", "NOT_SUPPORTED") in served.failures()
    served.close()


def test_failures_and_loss_are_told(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    with_keeper(monkeypatch, FakeKeeper(1))
    served = open_nvidia(settings())
    assert not served.lost()
    rack.lose(0)
    served.gpu.read()
    assert served.lost()
    assert {code for _function, code in served.failures()} == {"GPU_IS_LOST"}
    served.close()


@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"])
def test_an_nvml_that_hangs_while_it_is_opened_is_not_waited_for(
    rack: Rack, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    monkeypatch.setattr(nvidia, "OPEN_LIMIT_S", 0.2)
    rack.slow(function, HANGS_S)
    with pytest.raises(ConfigError, match="NVML has not answered for"):
        open_nvidia(settings())


def test_a_gpu_that_hangs_when_it_is_asked_who_computes_on_it_is_served_all_the_same(
    rack: Rack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nvidia, "ASK_LIMIT_S", 0.2)
    with_keeper(monkeypatch, FakeKeeper(1))
    rack.slow("nvmlDeviceGetComputeRunningProcesses", HANGS_S)
    served = open_nvidia(settings())
    assert served.gpu.sm_clocks_mhz
    assert "has not said within 0.2 s who computes on it" in caplog.text
    served.close()


def test_a_gpu_that_its_keeper_finds_lost_is_opened_and_given_up_when_it_is_to_be_set(
    rack: Rack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = FakeKeeper(1)

    def lost() -> None:
        raise DeviceLost("NVML says GPU_IS_LOST (15)")

    monkeypatch.setattr(keeper, "bounds", lost)
    with_keeper(monkeypatch, keeper)
    served = open_nvidia(settings())
    assert served.gpu.sm_clocks_mhz == ()
    assert served.lost()
    assert caplog.text.count("GPU_IS_LOST") == 1
    served.close()
