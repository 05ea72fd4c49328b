from __future__ import annotations

from pathlib import Path

import pytest

from optimizer.settings_table import SettingsError
from optimizer.twin.gpu_profile import Noise, PowerSensor
from optimizer.twin.profile import load_profile, shipped_profiles

HEAD = """
name = "card"
source = "made up for tests"
sm_clocks_mhz = {clocks}
boost_clock_mhz = 1000
power_limit_w = {limit}
idle_power_w = 20
clock_switch_s = [0.02, 0.25]
power_sensor = {{ period_s = 0.02, window_s = 0.01 }}
energy_counter_period_s = 0.1
noise = {{ latency_cv = 0.01, power_cv = 0.02 }}
"""
SURFACE = "batch,sm_clock_mhz,latency_ms,power_w\n1,500,4,50\n1,1000,2,90\n4,500,10,70\n4,1000,5,130\n"


def write(folder: Path, head: str, surface: str = SURFACE) -> Path:
    (folder / "points.csv").write_text(surface)
    file = folder / "card.toml"
    file.write_text(head + '[models.net]\nsurface = "points.csv"\n')
    return file


def head(clocks: str = "[500, 750, 1000]", limit: float = 300) -> str:
    return HEAD.format(clocks=clocks, limit=limit)


def test_a_surface_is_exact_at_its_points_and_linear_between(tmp_path: Path) -> None:
    net = load_profile(write(tmp_path, head())).model("net")
    assert net.batch_s(4, 500) == pytest.approx(0.010)
    assert net.busy_power_w(1, 1000) == pytest.approx(90.0)
    assert net.batch_s(1, 750) == pytest.approx(0.003)
    assert net.batch_s(2, 500) == pytest.approx(0.006)
    assert net.busy_power_w(2, 1000) == pytest.approx(90.0 + 40.0 / 3.0)
    assert net.batch_s(7, 1000) == pytest.approx(0.008), "time goes on along the last two batch sizes"
    assert net.busy_power_w(7, 1000) == pytest.approx(130.0), "power does not"


def test_a_surface_of_one_batch_size_is_proportional(tmp_path: Path) -> None:
    one = "batch,sm_clock_mhz,latency_ms,power_w\n4,500,10,70\n4,1000,5,130\n"
    assert load_profile(write(tmp_path, head(), one)).model("net").batch_s(8, 500) == pytest.approx(0.020)


def test_clock_steps_are_cut_to_whole_megahertz(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, head("{ first = 500, last = 1000, step = 62.5 }")))
    assert profile.sm_clocks_mhz == (500, 562, 625, 687, 750, 812, 875, 937, 1000)


def test_the_power_limit_holds_the_clock_down(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, head(limit=100)))
    assert profile.running_clock_mhz("net", 1, 1000) == 1000
    assert profile.running_clock_mhz("net", 4, 1000) == 750
    assert profile.running_clock_mhz("net", 4, 500) == 500
    starved = load_profile(write(tmp_path, head(limit=10)))
    assert starved.running_clock_mhz("net", 4, 1000) == 500, "there is no clock below the lowest"


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("source = ", "origin = ", "source is missing"),
        ("idle_power_w = 20", "", "idle_power_w is missing"),
        ("idle_power_w = 20", "idle_power_w = -1", "idle_power_w = -1 is not allowed; expected a number"),
        (
            "idle_power_w = 20",
            "idle_power_w = 20\nidle_w = 3",
            "unknown key 'idle_w'; allowed are .*idle_power_w",
        ),
        ("[500, 750, 1000]", "[500, 1000, 750]", "sm_clocks_mhz = .*ascending"),
        ("[500, 750, 1000]", "[500, 900]", "boost_clock_mhz = 1000 .*one of sm_clocks_mhz"),
        ("boost_clock_mhz = 1000", "boost_clock_mhz = 999", "boost_clock_mhz = 999 .*one of sm_clocks_mhz"),
        (
            "power_cv = 0.02",
            "energy_cv = 0.02",
            r"\[noise\]: unknown key 'energy_cv'; allowed are latency_cv",
        ),
        ("[500, 750, 1000]", "{ first = 500, last = 1000 }", r"\[sm_clocks_mhz\]: step is missing"),
        ("[500, 750, 1000]", "{ first = 1000, last = 500, step = 1 }", "first no greater than last"),
        (
            "[500, 750, 1000]",
            "{ first = 999, last = 1000, step = 0.25 }",
            r"\[sm_clocks_mhz\]: step = 0.25 is not allowed; expected at least 1 MHz",
        ),
        ("[500, 750, 1000]", "{ first = 1, last = 1e6, step = 1 }", "at most 2000 clocks"),
        ("[0.02, 0.25]", "[0.25, 0.02]", "clock_switch_s = .*low"),
        ("[0.02, 0.25]", "[0.25]", "clock_switch_s = .*a list of 2 numbers"),
        ("window_s = 0.01", "window_s = 0", r"\[power_sensor\]: window_s = 0 .*greater than 0"),
        ("period_s = 0.02", "period = 0.02", r"\[power_sensor\]: period_s is missing"),
        ("latency_cv = 0.01", "latency_cv = 'low'", r"\[noise\]: latency_cv = 'low' is not allowed"),
    ],
)
def test_bad_profiles_name_file_key_and_remedy(
    tmp_path: Path, before: str, after: str, complaint: str
) -> None:
    good = head()
    assert before in good
    with pytest.raises(SettingsError, match=complaint) as caught:
        load_profile(write(tmp_path, good.replace(before, after)))
    assert "card.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("surface", "complaint"),
    [
        ("", "expected a first line batch,sm_clock_mhz,latency_ms,power_w"),
        ("batch,latency_ms\n1,2\n", "expected a first line"),
        (SURFACE + "8,500,fast,90\n", "line 6: latency_ms = 'fast'; expected a number above 0"),
        (SURFACE + "1.5,500,3,90\n", r"line 6: batch = '1\.5'; expected a whole number above 0"),
        (SURFACE + "4,500,11,90\n", "batch 4 names a clock twice"),
        (SURFACE + "8,500,3\n", "line 6: 3 values; expected 4"),
        (SURFACE + "8" * 200_000 + ",500,3,90\n", "line 6: not CSV: field larger than field limit"),
    ],
)
def test_bad_surfaces_name_file_and_line(tmp_path: Path, surface: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint) as caught:
        load_profile(write(tmp_path, head(), surface))
    assert "points.csv" in str(caught.value)


def test_a_surface_measured_at_none_of_the_cards_clocks_is_refused(tmp_path: Path) -> None:
    in_gigahertz = SURFACE.replace(",500,", ",0.5,").replace(",1000,", ",1,")
    with pytest.raises(SettingsError, match=r"points at clocks in 500\.\.1000 MHz, but it covers 0\.5\.\.1$"):
        load_profile(write(tmp_path, head(), in_gigahertz))


@pytest.mark.parametrize(
    ("models", "complaint"),
    [
        ("", "models is missing"),
        ("[models]\n", "at least one table"),
        ("[models.net]\nlaunch_ms = 1\n", r"\[models\]: \[net\]: parametric physics needs a \[chip\] table"),
        ('[models.net]\nsurface = "absent.csv"\n', r"absent\.csv: cannot be read"),
        ('[models.net]\nsurface = "points.csv"\nlaunch_ms = 1\n', "unknown key 'launch_ms'"),
    ],
)
def test_bad_models_are_refused(tmp_path: Path, models: str, complaint: str) -> None:
    file = write(tmp_path, head())
    file.write_text(head() + models)
    with pytest.raises(SettingsError, match=complaint):
        load_profile(file)


def test_what_most_cards_share_may_be_left_out(tmp_path: Path) -> None:
    least = """
name = "card"
source = "made up for tests"
sm_clocks_mhz = [500, 750, 1000]
power_limit_w = 300
idle_power_w = 20
"""
    profile = load_profile(write(tmp_path, least))
    assert profile.boost_clock_mhz == 1000
    assert profile.noise == Noise(0.0, 0.0)
    assert profile.clock_switch_s == (0.02, 0.25)
    assert profile.power_sensor == PowerSensor(period_s=0.1, window_s=0.025)
    assert (profile.energy_counter_period_s, profile.power_cap_settle_s) == (0.1, 0.0)
    partly = load_profile(
        write(tmp_path, least + "noise = { latency_cv = 0.03 }\npower_cap_settle_s = 0.2\n")
    )
    assert (partly.noise, partly.power_cap_settle_s) == (Noise(latency_cv=0.03), 0.2)


CHIP = """
[chip]
knee_clock_mhz = 600
floor_voltage = 0.8
constant_w = 30
leakage_w = 20
clock_tree_w = 40
[models.net]
launch_ms = 0.1
memory_ms = 0.2
compute_ms = 0.5
memory_ms_per_image = 0.1
compute_ms_per_image = 0.2
activity_w = 100
activity_exponent = 1.2
memory_activity_share = 0.3
"""


def test_parametric_physics_may_say_how_sharp_the_roofline_is(tmp_path: Path) -> None:
    file = tmp_path / "card.toml"
    file.write_text(head() + CHIP)
    assert load_profile(file).model("net").batch_s(10, 1000) == pytest.approx(3.8e-3)
    file.write_text(head() + CHIP + "roofline_sharpness = 2\n")
    assert load_profile(file).model("net").batch_s(10, 1000) == pytest.approx(0.8e-3 + 10 * 0.05**0.5 * 1e-3)


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("activity_w = 100", "", r"\[net\]: activity_w is missing"),
        ("memory_activity_share = 0.3", "memory_activity_share = 1.3", "a share from 0 to 1"),
        (
            "knee_clock_mhz = 600",
            "knee_clock_mhz = 1000",
            r"\[chip\]: knee_clock_mhz = 1000 .*below the boost",
        ),
        ("floor_voltage = 0.8", "floor_voltage = 1.1", "floor_voltage = 1.1 .*a share from 0 to 1"),
        (
            "launch_ms = 0.1",
            "launch_ms = 0.1\nroofline_sharpness = 0.5",
            "roofline_sharpness = 0.5 .*1 or more",
        ),
        (
            "launch_ms = 0.1",
            "launch_ms = 0.1\nlaunch_us = 1",
            "unknown key 'launch_us'; allowed are .*launch_ms",
        ),
    ],
)
def test_bad_physics_are_refused(tmp_path: Path, before: str, after: str, complaint: str) -> None:
    assert before in CHIP
    file = tmp_path / "card.toml"
    file.write_text(head() + CHIP.replace(before, after))
    with pytest.raises(SettingsError, match=complaint):
        load_profile(file)


def test_unknown_names_list_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no GPU profile 'v1000'; give a \.toml file or one of .*v100"):
        load_profile("v1000")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_profile(tmp_path / "absent.toml")
    with pytest.raises(KeyError, match="no model 'vgg'; it has net"):
        load_profile(write(tmp_path, head())).model("vgg")


@pytest.mark.parametrize("name", shipped_profiles())
def test_shipped_profiles_load_and_behave(name: str) -> None:
    profile = load_profile(name)
    low, high = profile.sm_clocks_mhz[0], profile.boost_clock_mhz
    for net in profile.models.values():
        assert net.batch_s(1, high) < net.batch_s(1, low)
        assert net.batch_s(1, high) < net.batch_s(8, high) < 8 * net.batch_s(1, high)
        assert profile.idle_power_w < net.busy_power_w(1, low) < net.busy_power_w(1, high)
