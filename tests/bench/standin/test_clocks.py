from __future__ import annotations

from collections.abc import Callable

import pynvml
import pytest
from nvml_rack import OpenRack, Rack, make_card

SM, MEMORY = pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM
BUSY_S = 1000.0
OpenCard = Callable[..., tuple[Rack, object]]
REFUSED = pynvml.NVMLError_InvalidArgument


@pytest.fixture
def busy(open_rack: OpenRack) -> OpenCard:
    """A rack of one card that works all the time, and the card's handle."""

    def make(kind: str = "ampere", **changes: object) -> tuple[Rack, object]:
        rack = open_rack(make_card(kind, **changes))
        rack.keep_busy(0, BUSY_S, 0.1)
        return rack, pynvml.nvmlDeviceGetHandleByIndex(0)

    return make


def sm_clock(card: object) -> int:
    return pynvml.nvmlDeviceGetClockInfo(card, SM)


@pytest.mark.parametrize(
    ("kind", "memory", "count", "highest"),
    [("volta", [877], 167, 1380), ("ampere", [1215], 81, 1410), ("hopper", [2619, 1593], 97, 1785)],
)
def test_legal_clocks_are_listed_from_the_highest_down(
    open_rack: OpenRack, kind: str, memory: list[int], count: int, highest: int
) -> None:
    open_rack(make_card(kind))
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    clocks = pynvml.nvmlDeviceGetSupportedGraphicsClocks(card, memory[0])
    assert pynvml.nvmlDeviceGetSupportedMemoryClocks(card) == memory
    assert (len(clocks), clocks[0]) == (count, highest)
    assert clocks == sorted(clocks, reverse=True)
    assert pynvml.nvmlDeviceGetMaxClockInfo(card, SM) == highest
    with pytest.raises(pynvml.NVMLError_NotFound):
        pynvml.nvmlDeviceGetSupportedGraphicsClocks(card, 1)


def test_a_low_memory_clock_has_fewer_sm_clocks(open_rack: OpenRack) -> None:
    open_rack(make_card("turing"))
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert max(pynvml.nvmlDeviceGetSupportedGraphicsClocks(card, 5001)) == 1590
    assert max(pynvml.nvmlDeviceGetSupportedGraphicsClocks(card, 405)) == 645


def test_an_idle_card_falls_to_its_idle_clock_after_a_while(open_rack: OpenRack) -> None:
    rack = open_rack(make_card("ampere", idle_after_s=0.2))
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert sm_clock(card) == 210
    rack.keep_busy(0, 1.0)
    assert sm_clock(card) == 1410
    rack.skip(1.1)
    assert sm_clock(card) == 1410
    rack.skip(0.2)
    assert sm_clock(card) == 210
    assert pynvml.nvmlDeviceGetCurrentClocksEventReasons(card) == pynvml.nvmlClocksEventReasonGpuIdle


def test_a_locked_clock_is_in_force_after_the_settle_time(busy: OpenCard) -> None:
    rack, card = busy(settle_s=0.1)
    pynvml.nvmlDeviceSetGpuLockedClocks(card, 900, 900)
    assert rack.card().locked_sm_mhz == (900, 900)
    assert sm_clock(card) == 1410
    rack.skip(0.09)
    assert sm_clock(card) == 1410
    rack.skip(0.02)
    assert sm_clock(card) == rack.card().sm_clock_mhz == 900


def test_a_change_before_the_last_has_settled_goes_on_from_what_was_in_force(busy: OpenCard) -> None:
    rack, card = busy(settle_s=0.1)
    pynvml.nvmlDeviceSetGpuLockedClocks(card, 900, 900)
    rack.skip(0.05)
    pynvml.nvmlDeviceSetGpuLockedClocks(card, 600, 600)
    rack.skip(0.06)
    assert sm_clock(card) == 1410
    rack.skip(0.05)
    assert sm_clock(card) == 600


def test_asking_again_for_what_is_in_force_changes_nothing(busy: OpenCard) -> None:
    rack, card = busy(settle_s=0.1)
    pynvml.nvmlDeviceSetGpuLockedClocks(card, 900, 900)
    rack.skip(0.06)
    pynvml.nvmlDeviceSetGpuLockedClocks(card, 900, 900)
    rack.skip(0.05)
    assert sm_clock(card) == 900


@pytest.mark.parametrize(("asked", "taken"), [(1000, 990), (990, 990), (1004, 990), (1, 210), (9999, 1410)])
def test_a_locked_clock_snaps_to_the_legal_one_below(busy: OpenCard, asked: int, taken: int) -> None:
    rack, card = busy(settle_s=0.0)
    pynvml.nvmlDeviceSetGpuLockedClocks(card, asked, asked)
    assert rack.card().locked_sm_mhz == (taken, taken)
    assert sm_clock(card) == taken


@pytest.mark.parametrize("span", [(900, 600), (0, 0)])
def test_a_range_that_is_none_is_refused(busy: OpenCard, span: tuple[int, int]) -> None:
    rack, card = busy()
    with pytest.raises(REFUSED):
        pynvml.nvmlDeviceSetGpuLockedClocks(card, *span)
    assert rack.card().is_default


def test_unlocking_gives_the_clock_back(busy: OpenCard) -> None:
    rack, card = busy(settle_s=0.0)
    pynvml.nvmlDeviceSetGpuLockedClocks(card, 900, 900)
    assert not rack.card().is_default
    pynvml.nvmlDeviceResetGpuLockedClocks(card)
    assert rack.card().is_default
    assert sm_clock(card) == 1410


@pytest.mark.parametrize(("below", "clock"), [(False, 900), (True, 210)])
def test_an_idle_card_stays_at_its_lock_unless_it_is_one_of_those_that_do_not(
    open_rack: OpenRack, below: bool, clock: int
) -> None:
    open_rack(make_card("ampere", settle_s=0.0, idles_below_lock=below))
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    pynvml.nvmlDeviceSetGpuLockedClocks(card, 900, 1200)
    assert sm_clock(card) == clock


def test_a_pascal_card_has_application_clocks_only(busy: OpenCard) -> None:
    rack, card = busy("pascal", settle_s=0.0)
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceSetGpuLockedClocks(card, 1000, 1000)
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceResetGpuLockedClocks(card)
    legal = pynvml.nvmlDeviceGetSupportedGraphicsClocks(card, 715)[20]
    pynvml.nvmlDeviceSetApplicationsClocks(card, 715, legal)
    assert rack.card().application_clocks_mhz == (715, legal)
    assert pynvml.nvmlDeviceGetApplicationsClock(card, SM) == sm_clock(card) == legal
    assert pynvml.nvmlDeviceGetApplicationsClock(card, MEMORY) == 715
    assert (
        pynvml.nvmlDeviceGetCurrentClocksEventReasons(card)
        & pynvml.nvmlClocksEventReasonApplicationsClocksSetting
    )
    pynvml.nvmlDeviceResetApplicationsClocks(card)
    assert rack.card().is_default
    assert pynvml.nvmlDeviceGetApplicationsClock(card, SM) == 1189
    assert sm_clock(card) == 1328


@pytest.mark.parametrize("pair", [(715, 1000), (716, 1328), (715, 99999), (0, 0)])
def test_application_clocks_must_be_a_legal_pair(busy: OpenCard, pair: tuple[int, int]) -> None:
    rack, card = busy("pascal")
    with pytest.raises(REFUSED):
        pynvml.nvmlDeviceSetApplicationsClocks(card, *pair)
    assert rack.card().is_default


def test_a_memory_clock_can_be_locked_where_the_card_has_it(busy: OpenCard) -> None:
    rack, card = busy("hopper", settle_s=0.0)
    assert pynvml.nvmlDeviceGetClockInfo(card, MEMORY) == 2619
    pynvml.nvmlDeviceSetMemoryLockedClocks(card, 1593, 1593)
    assert pynvml.nvmlDeviceGetClockInfo(card, MEMORY) == 1593
    assert rack.card().locked_memory_mhz == (1593, 1593)
    pynvml.nvmlDeviceResetMemoryLockedClocks(card)
    assert rack.card().is_default
    assert pynvml.nvmlDeviceGetClockInfo(card, MEMORY) == 2619


def test_a_volta_card_cannot_lock_its_memory_clock(busy: OpenCard) -> None:
    _, card = busy("volta")
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceSetMemoryLockedClocks(card, 877, 877)


def test_a_low_memory_clock_holds_the_sm_clock_down(busy: OpenCard) -> None:
    _, card = busy("turing", settle_s=0.0, memory_locked_clocks=True)
    pynvml.nvmlDeviceSetGpuLockedClocks(card, 1200, 1200)
    pynvml.nvmlDeviceSetMemoryLockedClocks(card, 405, 405)
    assert sm_clock(card) == 645


def test_get_clock_tells_current_target_and_default(busy: OpenCard) -> None:
    _, card = busy("volta", settle_s=0.0)
    pynvml.nvmlDeviceSetApplicationsClocks(card, 877, 1005)
    ids = (
        pynvml.NVML_CLOCK_ID_CURRENT,
        pynvml.NVML_CLOCK_ID_APP_CLOCK_TARGET,
        pynvml.NVML_CLOCK_ID_APP_CLOCK_DEFAULT,
    )
    assert [pynvml.nvmlDeviceGetClock(card, SM, which) for which in ids] == [1005, 1005, 1230]
    assert pynvml.nvmlDeviceGetDefaultApplicationsClock(card, MEMORY) == 877
