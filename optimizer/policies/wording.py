"""Decisions in words, for a person to read."""

from __future__ import annotations

from optimizer.policies.policy import Prediction
from optimizer.revenue import Targets


def reason(
    why: str,
    chosen: Prediction,
    rival: Prediction | None,
    rate_per_s: float,
    infeasible: str | None,
    form: str,
) -> str:
    """Say in one line what was chosen, why, on what load, and what else there was."""
    load = f"{rate_per_s:.0f} images/s"
    against = f"; next best {rival.point}: {_text(rival, form)}" if rival else ""
    why = why if infeasible is None else f"{why}; {infeasible}"
    return f"{chosen.point}: {why}; on {load} expects {_text(chosen, form)}{against}"


def why_infeasible(targets: Targets, rate_per_s: float, chosen: Prediction) -> str:
    """Say that the targets cannot be kept, and the best that can be done."""
    wanted = f"SLO {targets.slo_p99_ms:g} ms"
    if targets.power_cap_w is not None:
        wanted += f" under {targets.power_cap_w:g} W"
    return (
        f"{wanted} cannot be kept at {rate_per_s:.0f} images/s; expects {_text(chosen, targets.form)} at best"
    )


def _text(prediction: Prediction, form: str) -> str:
    """Read as `1.23456/h, p99 12.3 ms, 143 W`; but for profit as `edp -0.000123456, p99 12.3 ms, 143 W`."""
    power = "power not measured" if prediction.power_w is None else f"{prediction.power_w:.0f} W"
    worth = prediction.revenue_per_s
    score = f"{worth * 3600:.6g}/h" if form == "profit" else f"{form} {worth:.6g}"
    return f"{score}, p99 {prediction.p99_ms:.1f} ms, {power}"
