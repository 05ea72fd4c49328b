from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from nvml_rack import CardSpec, OpenRack, Rack, make_card

from optimizer.devices.nvml.capabilities import Capabilities, Capability, Rights, own_rights, probe
from optimizer.devices.nvml.failures import KNOWN_CODES
from optimizer.devices.nvml.library import Nvml

ROOT = Rights(pid=100, euid=0, sys_admin=True)


@pytest.fixture
def nvml() -> Iterator[Nvml]:
    nvml = Nvml()
    yield nvml
    nvml.close()


def probed(rack: Rack, nvml: Nvml, rights: Rights = ROOT) -> Capabilities:
    nvml.open()
    return probe(nvml.card_at(0), rights)


def missing(capabilities: Capabilities) -> set[str]:
    return {item.name for item in capabilities.items if not item.available}


@pytest.mark.parametrize(
    ("card", "gaps"),
    [
        (make_card("hopper"), set()),
        (make_card("ampere"), {"memory clocks"}),
        (make_card("turing"), {"memory clocks"}),
        (make_card("volta"), {"memory clocks"}),
        (make_card("pascal"), {"memory clocks", "energy counter", "locked clocks"}),
        (make_card("hopper", application_clocks=False), {"application clocks"}),
        (make_card("hopper", energy_counter=False), {"energy counter"}),
    ],
)
def test_the_gaps_of_a_card(open_rack: OpenRack, nvml: Nvml, card: CardSpec, gaps: set[str]) -> None:
    found = probed(open_rack(card), nvml)
    assert missing(found) == gaps
    for item in found.items:
        assert item.detail
        assert bool(item.remedy) == (not item.available)


def test_the_figures_that_were_read(open_rack: OpenRack, nvml: Nvml) -> None:
    rack = open_rack(make_card("hopper"))
    rack.set_reason(0, 0x20)
    rack.set_power_limit(0, 300.0)
    found = probed(rack, nvml)
    assert found.uuid == rack.uuid(0)
    assert found["architecture"].detail == "Hopper"
    assert found["power"].detail == "61.0 W (average, field 185)"
    assert found["legal SM clocks"].detail == "97 from 345 to 1785 MHz (memory 2619 MHz)"
    assert found["memory clocks"].detail == "1593, 2619 MHz"
    assert found["power limit"].detail == "300 W set, 400 W by default, 200 to 400 W allowed"
    assert found["event reasons"].detail == "GPU_IDLE, SW_THERMAL_SLOWDOWN"


def test_legal_clocks_are_those_of_the_memory_clock_that_work_runs_at(
    open_rack: OpenRack, nvml: Nvml
) -> None:
    found = probed(open_rack(make_card("turing")), nvml)
    assert found["legal SM clocks"].detail == "87 from 300 to 1590 MHz (memory 5001 MHz)"


@pytest.mark.parametrize(
    ("rights", "available"),
    [
        (ROOT, True),
        (Rights(100, 0, None), True),
        (Rights(100, 0, sys_admin=False), False),
        (Rights(100, 1000, sys_admin=False), False),
    ],
)
def test_permission_is_told_by_the_rights(
    open_rack: OpenRack, nvml: Nvml, rights: Rights, available: bool
) -> None:
    permission = probed(open_rack(), nvml, rights)["permission to set"]
    assert permission.available == available
    assert available or "boulton keeper" in permission.remedy


def test_mig_and_other_processes(open_rack: OpenRack, nvml: Nvml) -> None:
    rack = open_rack()
    rack.set_mig(0, enabled=True)
    rack.set_processes(0, [ROOT.pid, 4711])
    found = probed(rack, nvml)
    assert found["whole GPU (no MIG)"].detail == "MIG is enabled"
    assert found["no other processes"].detail == "computing on it: 4711"


def test_this_process_is_no_other(open_rack: OpenRack, nvml: Nvml) -> None:
    rack = open_rack()
    rack.set_processes(0, [ROOT.pid])
    assert probed(rack, nvml)["no other processes"].available


@pytest.mark.parametrize("code", KNOWN_CODES)
def test_whatever_fails_is_a_gap_with_its_reason_and_nothing_is_set(
    open_rack: OpenRack, nvml: Nvml, code: int
) -> None:
    rack = open_rack()
    nvml.open()
    card = nvml.card_at(0)
    rack.fail("*", code, card=0)
    found = probe(card, ROOT)
    expected = {item.name for item in found.items} - {"permission to set"}
    if code in (3, 13):  # MIG is off where the card does not know of it
        expected -= {"whole GPU (no MIG)"}
    assert missing(found) == expected
    assert not rack.set_history()


def test_probing_a_card_calls_no_setter(open_rack: OpenRack, nvml: Nvml) -> None:
    rack = open_rack(make_card("hopper"))
    probed(rack, nvml)
    assert not rack.set_history()
    assert rack.card().is_default


def test_a_capability_that_does_not_exist(open_rack: OpenRack, nvml: Nvml) -> None:
    found = Capabilities("GPU-1", (Capability("power", True, "1 W"),))
    with pytest.raises(StopIteration):
        found["colour"]


@pytest.mark.parametrize(
    ("text", "sys_admin"),
    [
        ("Name:\tx\nCapEff:\t000001ffffffffff\n", True),
        ("CapEff:\t00000000a80425fb\n", False),
        ("CapEff:\n", None),
        ("CapEff:\tmany\n", None),
        ("Name:\tx\n", None),
    ],
)
def test_own_rights(tmp_path: Path, text: str, sys_admin: bool | None) -> None:
    status = tmp_path / "status"
    status.write_text(text)
    assert own_rights(status) == Rights(os.getpid(), os.geteuid(), sys_admin)


def test_rights_where_the_kernel_tells_nothing(tmp_path: Path) -> None:
    assert own_rights(tmp_path / "none").sys_admin is None


def test_a_driver_that_unloads_when_nobody_looks(
    open_rack: OpenRack, nvml: Nvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_rack()
    nvml.open()
    card = nvml.card_at(0)
    monkeypatch.setattr(card, "persistence", lambda: False)
    found = probe(card, ROOT)["persistence mode"]
    assert (found.available, found.detail) == (False, "off")
    assert "nvidia-smi -pm 1" in found.remedy


def test_a_card_that_names_no_memory_clock(
    open_rack: OpenRack, nvml: Nvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_rack()
    nvml.open()
    card = nvml.card_at(0)
    monkeypatch.setattr(card, "supported_memory_clocks_mhz", lambda: ())
    found = probe(card, ROOT)["legal SM clocks"]
    assert not found.available
    assert "NVML names no memory clock" in found.detail
