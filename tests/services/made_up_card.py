"""A card that is in no repository: measured points, few clocks, slow enough that seconds hold few images."""

from __future__ import annotations

from itertools import product
from pathlib import Path

CLOCKS_MHZ = (400, 600, 800, 1000)
PROFILE = """
name = "slow card"
source = "made up for tests"
sm_clocks_mhz = [400, 600, 800, 1000]
boost_clock_mhz = 1000
power_limit_w = 200
idle_power_w = 20
clock_switch_s = [0.01, 0.02]
power_sensor = {{ period_s = 0.02, window_s = 0.02 }}
energy_counter_period_s = 0.02
noise = {{ latency_cv = 0.01, power_cv = 0.01 }}

[models.little]
surface = "{surface}"
"""


def measured(batch: int, clock_mhz: int) -> tuple[float, float]:
    """Milliseconds and watts."""
    share = clock_mhz / 1000.0
    return 4.0 + (2.0 + 2.0 * batch) / share, 40.0 + (60.0 + 2.0 * batch) * share**2.5


def write_card(folder: Path, name: str = "card", scale_w: float = 1.0) -> Path:
    lines = ["batch,sm_clock_mhz,latency_ms,power_w"]
    for batch, clock in product((1, 2, 4, 8, 16, 32), CLOCKS_MHZ):
        latency_ms, power_w = measured(batch, clock)
        lines.append(f"{batch},{clock},{latency_ms:.6g},{power_w * scale_w:.6g}")
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = folder / f"{name}.toml"
    path.write_text(PROFILE.format(surface=f"{name}.csv"), encoding="utf-8")
    return path
