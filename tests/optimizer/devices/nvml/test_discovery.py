from __future__ import annotations

from collections.abc import Iterator

import pytest
from nvml_rack import OpenRack, Rack, make_card

from optimizer.devices.gpu import DeviceError
from optimizer.devices.nvml.discovery import find_gpus, order_warning, select_gpu
from optimizer.devices.nvml.failures import NvmlFailure
from optimizer.devices.nvml.library import Nvml

UUIDS = [f"GPU-57a4d1{number:02x}-0000-4000-8000-{number:012x}" for number in (0, 1, 2, 0x1F)]


@pytest.fixture
def rack(open_rack: OpenRack) -> Rack:
    """Four cards; the UUIDs of the last two begin alike up to `GPU-57a4d1` and, of no two, further."""
    kinds = ("ampere", "volta", "pascal", "hopper")
    return open_rack(*(make_card(kind, number) for kind, number in zip(kinds, (0, 1, 2, 0x1F), strict=True)))


@pytest.fixture
def nvml(rack: Rack) -> Iterator[Nvml]:
    with Nvml() as nvml:
        yield nvml


@pytest.mark.parametrize(
    ("wanted", "visible", "chosen"),
    [
        (None, None, 0),
        ("2", None, 2),
        (UUIDS[1], None, 1),
        (UUIDS[1].lower(), None, 1),
        ("GPU-57a4d11", None, 3),
        ("GPU-57a4d102", None, 2),
        (None, "3,1", 3),
        ("1", "3,1", 1),
        ("0", " 2 , 0 ", 2),
        (None, UUIDS[2], 2),
        ("1", f"GPU-57a4d102,{UUIDS[0]}", 0),
        (UUIDS[1], "3,1", 1),
        ("GPU-57a4d101", f"0,{UUIDS[1]}", 1),
        ("0", "1,-1,0", 1),
        ("0", "1,9,0", 1),
        ("0", "1,nonsense,0", 1),
        ("0", "1,GPU-57a4d1,0", 1),  # a beginning that several share names none
    ],
)
def test_the_gpu_that_is_meant(
    rack: Rack, nvml: Nvml, wanted: str | None, visible: str | None, chosen: int
) -> None:
    assert select_gpu(nvml, wanted, visible).uuid == rack.uuid(chosen)


@pytest.mark.parametrize(
    ("wanted", "visible", "complaint"),
    [
        (None, "", r"hides the other 4"),
        (None, "-1", r"CUDA_VISIBLE_DEVICES='-1' hides the other 4"),
        (None, "-1,0", r"no GPU 0 here; choose of none"),
        ("4", None, r"no GPU 4 here; choose of 0 \(GPU-57a4d100"),
        ("1", "2", r"no GPU 1 here; choose of 0 \(GPU-57a4d102.*hides the other 3"),
        (UUIDS[0], "1,2", r"no GPU GPU-57a4d100.*hides the other 2"),
        ("GPU-57a4d1", None, r"begins the UUIDs of 0 \(.*3 \(GPU-57a4d11f.*write more of it"),
        ("GPU-beef", None, "no GPU GPU-beef here"),
        ("57a4d100", None, "no GPU 57a4d100 here"),
        ("-1", None, "no GPU -1 here"),
        ("", None, "no GPU  here"),
        ("MIG-1d2c3b4a-0000-0000-0000-000000000000", None, "MIG-1d2c.*a MIG instance shares clock"),
        ("mig-gpu-57a4d100/1/0", None, "a MIG instance shares clock"),
        (None, "MIG-GPU-57a4d100/1/0", "CUDA_VISIBLE_DEVICES names MIG-GPU.*a MIG instance shares clock"),
        (None, "0,0", "names GPU 0 twice"),
        (None, f"1,{UUIDS[1]}", "names GPU 1 twice"),
    ],
)
def test_what_is_no_gpu_here(nvml: Nvml, wanted: str | None, visible: str | None, complaint: str) -> None:
    with pytest.raises(DeviceError, match=complaint):
        select_gpu(nvml, wanted, visible)


def test_a_lost_gpu_does_not_hide_the_others(rack: Rack, nvml: Nvml) -> None:
    rack.lose(1)
    assert [found.card is None for found in find_gpus(nvml)] == [False, True, False, False]
    assert select_gpu(nvml, "2", None).uuid == rack.uuid(2)
    with pytest.raises(DeviceError, match=r"GPU 1 cannot be used: .*GPU_IS_LOST"):
        select_gpu(nvml, "1", None)


def test_no_nvml_any_more(rack: Rack, nvml: Nvml) -> None:
    rack.fail("nvmlDeviceGetHandleByIndex", 9)
    with pytest.raises(NvmlFailure, match="DRIVER_NOT_LOADED"):
        find_gpus(nvml)


def test_no_gpu_at_all(rack: Rack, nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "count", lambda: 0)
    with pytest.raises(DeviceError, match="no GPU 0 here; choose of none"):
        select_gpu(nvml, None, None)


@pytest.mark.parametrize(
    ("names", "visible", "order", "warns"),
    [
        (["A100", "T4"], None, None, True),
        (["A100", "T4"], "1", None, True),
        (["A100", "T4"], "1", "FASTEST_FIRST", True),
        (["A100", "T4"], "1", "PCI_BUS_ID", False),
        (["A100", "T4"], "GPU-5f3c", None, False),
        (["A100", "A100"], "1", None, False),
        ([], None, None, False),
    ],
)
def test_cuda_may_count_otherwise(
    names: list[str], visible: str | None, order: str | None, warns: bool
) -> None:
    assert bool(order_warning(names, visible, order)) == warns
