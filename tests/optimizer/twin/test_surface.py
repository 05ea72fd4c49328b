"""Measured surfaces: what is between the points, what is beyond them, and that nothing else is different."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.devices.simulated import SimulatedGpu
from optimizer.settings_table import SettingsError
from optimizer.telemetry import EventReason
from optimizer.twin.profile import load_profile
from optimizer.twin.simulation import SimulatedClock
from optimizer.twin.surface import ClockSweep, SurfacePhysics, load_surface

HEADER = "batch,sm_clock_mhz,latency_ms,power_w\n"
T4 = load_profile("t4")


def surface(folder: Path, *rows: str, header: str = HEADER) -> SurfacePhysics:
    file = folder / "points.csv"
    file.write_text(header + "\n".join(rows) + "\n", encoding="utf-8")
    return load_surface(file)


ROWS = ("4,500,10,70", "4,1000,6,130", "8,500,18,80", "8,1000,10,150", "32,500,66,90", "32,1000,34,170")


def test_rows_may_come_in_any_order(tmp_path: Path) -> None:
    assert surface(tmp_path, *ROWS) == surface(tmp_path, *reversed(ROWS))


def test_comments_spaces_further_columns_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    header = "\ufeff# measured on a bench\nnote, power_w , batch,sm_clock_mhz,latency_ms\n\n"
    rows = (
        "# the slow ones",
        "a,70,4,500,10",
        "b, 130, 4, 1000, 6",
        "",
        '"c,d",80,8,500,18',
        "e,150,8,1000,10",
    )
    assert surface(tmp_path, *rows, header=header) == surface(tmp_path, *ROWS[:4])


def test_an_error_names_the_line_in_the_file_comments_included(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="line 4: power_w = 'x'; expected a number above 0"):
        surface(tmp_path, "# one", "4,500,10,70", "4,1000,6,x")
    with pytest.raises(SettingsError, match="line 2: 5 values; expected 4"):
        surface(tmp_path, "4,500,10,7,5")
    with pytest.raises(SettingsError, match="expected a first line batch,sm_clock_mhz,latency_ms,power_w"):
        surface(tmp_path, "4;500;10;7", header="batch;sm_clock_mhz;latency_ms;power_w\n")
    with pytest.raises(SettingsError, match=r"expected a first line .* and then measured points"):
        surface(tmp_path)
    with pytest.raises(SettingsError, match="batch = 'nan'"):
        surface(tmp_path, "nan,500,10,7")


def test_batches_between_and_beyond_the_measured_ones(tmp_path: Path) -> None:
    net = surface(tmp_path, *ROWS)
    assert net.batch_s(20, 1000) == pytest.approx(22e-3), "between: linear"
    assert net.busy_power_w(20, 1000) == pytest.approx(160.0)
    assert net.batch_s(2, 1000) == pytest.approx(4e-3), "below: along the nearest two"
    assert net.batch_s(64, 1000) == pytest.approx(66e-3), "above: along the nearest two"
    assert (net.busy_power_w(1, 1000), net.busy_power_w(99, 1000)) == pytest.approx((130.0, 170.0))


def test_one_batch_size_is_padded_below_and_repeated_above(tmp_path: Path) -> None:
    net = surface(tmp_path, "4,500,10,70", "4,1000,5,130")
    assert [net.batch_s(size, 1000) * 1e3 for size in (1, 4, 8)] == pytest.approx([5.0, 5.0, 10.0])


def test_odd_measurements_give_no_odd_times_beyond_them(tmp_path: Path) -> None:
    """A larger batch that seems to be faster, and one that takes more than its share."""
    faster = surface(tmp_path, "4,1000,10,100", "8,1000,9,100")
    assert [faster.batch_s(size, 1000) * 1e3 for size in (1, 64)] == pytest.approx([10.0, 9.0])
    slower = surface(tmp_path, "4,1000,4,100", "8,1000,16,100")
    assert [slower.batch_s(size, 1000) * 1e3 for size in (1, 64)] == pytest.approx([1.0, 128.0])


def test_each_batch_size_may_be_measured_at_its_own_clocks(tmp_path: Path) -> None:
    net = surface(tmp_path, "4,500,10,70", "4,800,7,100", "4,1000,6,130", "8,600,15,90", "8,1000,10,150")
    assert net.batch_s(4, 900) == pytest.approx(6.5e-3)
    assert net.batch_s(8, 800) == pytest.approx(12.5e-3)
    assert net.batch_s(6, 800) == pytest.approx((7 + 12.5) / 2 * 1e-3)
    assert net.batch_s(8, 500) == pytest.approx(18e-3), "below its clocks: in inverse proportion"


@given(st.integers(1, 200), st.floats(50, 499), st.floats(1001, 3000))
def test_nothing_is_gained_beyond_the_measured_clocks(batch: int, low_mhz: float, high_mhz: float) -> None:
    net = SurfacePhysics(
        (
            ClockSweep(4, (500.0, 1000.0), (10.0, 6.0), (70.0, 130.0)),
            ClockSweep(32, (500.0, 1000.0), (66.0, 34.0), (90.0, 170.0)),
        )
    )
    assert net.batch_s(batch, low_mhz) == pytest.approx(net.batch_s(batch, 500) * 500 / low_mhz)
    assert net.busy_power_w(batch, low_mhz) == pytest.approx(net.busy_power_w(batch, 500))
    assert net.batch_s(batch, high_mhz) == pytest.approx(net.batch_s(batch, 1000))
    assert net.busy_power_w(batch, high_mhz) == pytest.approx(net.busy_power_w(batch, 1000))


def test_a_card_may_have_clocks_that_nobody_measured(tmp_path: Path) -> None:
    surface(tmp_path, *ROWS)
    file = tmp_path / "card.toml"
    file.write_text(
        'name = "card"\nsource = "tests"\nsm_clocks_mhz = [400, 500, 1000, 1200]\npower_limit_w = 300\n'
        'idle_power_w = 20\n[models.net]\nsurface = "points.csv"\n'
    )
    profile = load_profile(file)
    assert profile.sm_clocks_mhz == (400, 500, 1000, 1200)
    assert profile.model("net").batch_s(4, 1200) == pytest.approx(6e-3)
    assert profile.model("net").batch_s(4, 400) == pytest.approx(12.5e-3)


def test_a_measured_card_behaves_as_the_parametric_one_that_was_measured(tmp_path: Path) -> None:
    """All batches of interest, every clock: the simulated GPU does the same to the last digit of the file."""
    net, batches = T4.model("resnet50"), (1, 4, 16, 64)
    rows = [
        f"{batch},{clock},{net.batch_s(batch, clock) * 1e3!r},{net.busy_power_w(batch, clock)!r}"
        for clock in reversed(T4.sm_clocks_mhz)
        for batch in batches
    ]
    measured = dataclasses.replace(T4, models={"resnet50": surface(tmp_path, *rows)})
    clock = SimulatedClock()
    modelled_gpu, measured_gpu = (SimulatedGpu(card, clock=clock, rng_seed=5) for card in (T4, measured))
    capped = 0
    for step in range(400):
        batch, asked = batches[step % 4 if step < 200 else 3], T4.sm_clocks_mhz[-1 - (step // 100) * 20]
        if step % 50 == 0:
            modelled_gpu.set_sm_clock_mhz(asked)
            measured_gpu.set_sm_clock_mhz(asked)
        seconds = modelled_gpu.execute("resnet50", batch)
        assert measured_gpu.execute("resnet50", batch) == pytest.approx(seconds)
        clock.now_s += seconds / 2
        one, other = modelled_gpu.read(), measured_gpu.read()
        clock.now_s += seconds / 2
        assert (one.sm_clock_mhz, one.event_reasons) == (other.sm_clock_mhz, other.event_reasons)
        assert one.energy.joules == pytest.approx(other.energy.joules, abs=2e-3)
        capped += EventReason.SW_POWER_CAP in one.event_reasons
    assert 20 < capped < 380, "both with and without the limit"


def test_sparse_points_come_close_to_what_was_measured(tmp_path: Path) -> None:
    net = T4.model("resnet50")
    clocks = (300, 405, 525, 705, 1005, 1305, 1590)
    rows = [
        f"{batch},{clock},{net.batch_s(batch, clock) * 1e3},{net.busy_power_w(batch, clock)}"
        for batch in (1, 8, 32, 128)
        for clock in clocks
    ]
    sparse = surface(tmp_path, *rows)
    for clock in T4.sm_clocks_mhz:
        for batch in (1, 3, 20, 100):
            assert sparse.batch_s(batch, clock) == pytest.approx(net.batch_s(batch, clock), rel=0.05)
            assert sparse.busy_power_w(batch, clock) == pytest.approx(
                net.busy_power_w(batch, clock), rel=0.12
            )
