"""What a policy has learned, in sentences and a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from protos import boulton_pb2 as pb

MOST_SETTINGS = 20
_LITTLE_MS = 0.05
_BY_CHANCE, _IN_BURSTS = 1.3, 3.0
_COLUMNS = (("clock MHz", 9), ("batch", 6), ("ms", 8), ("ms/image", 9), ("W", 5), ("known", 6))


def learned_lines(learned: pb.Learned) -> Iterator[str]:
    """Say what a policy knows."""
    if not learned.learns:
        yield f"the policy {learned.policy} learns nothing"
        return
    yield f"learned by {learned.policy}{f', kept in {learned.file}' if learned.file else ''}:"
    if learned.HasField("insight"):
        yield from _told(learned.insight)
    else:
        yield "  it cannot tell in words; --json prints what it saves"


def learned_json(learned: pb.Learned) -> str:
    """Return all that the policy would save, as JSON."""
    state = json.loads(learned.state_json) if learned.state_json else {}
    head = {"policy": learned.policy, "learns": learned.learns, "file": learned.file}
    return json.dumps({**head, "state": state}, indent=2)


def _told(insight: pb.Insight) -> Iterator[str]:
    yield from _machine(insight)
    yield f"  guesses   {_guesses(insight.doubt)}"
    yield f"  latency   {_overhead(insight.overhead_ms)}"
    yield f"  traffic   {_traffic(insight)}"


def _machine(insight: pb.Insight) -> Iterator[str]:
    """Some of the settings, by clock and batch."""
    if not insight.tried:
        yield "  machine   no batch was learned from yet"
        return
    shown = _typical(insight.tried)
    yield f"  machine   what batches take where some ran{_idle(insight)}:"
    yield _row([name for name, _ in _COLUMNS])
    for setting in shown:
        yield _row(_cells(setting))
    left = len(insight.tried) - len(shown)
    if left:
        yield f"            and {left} more like these"


def _idle(insight: pb.Insight) -> str:
    if not insight.HasField("idle_power_w"):
        return "; no energy was measured"
    return f", and W while they run ({insight.idle_power_w:.0f} W idle)"


def _typical(settings: Iterable[pb.TriedSetting]) -> list[pb.TriedSetting]:
    """At each clock the best known of batches of similar size; of too many again the best known."""
    best: dict[tuple[int, int], pb.TriedSetting] = {}
    for setting in sorted(settings, key=lambda setting: -setting.known):
        best.setdefault((setting.sm_clock_mhz, setting.batch.bit_length()), setting)
    return sorted([*best.values()][:MOST_SETTINGS], key=lambda setting: (setting.sm_clock_mhz, setting.batch))


def _row(cells: Sequence[str]) -> str:
    return "          " + " ".join(
        cell.rjust(width) for cell, (_, width) in zip(cells, _COLUMNS, strict=True)
    )


def _cells(setting: pb.TriedSetting) -> Sequence[str]:
    return (
        str(setting.sm_clock_mhz) if setting.HasField("sm_clock_mhz") else "-",
        str(setting.batch),
        f"{setting.batch_ms:.2f}",
        f"{setting.batch_ms / max(1, setting.batch):.3f}",
        f"{setting.power_w:.0f}" if setting.HasField("power_w") else "-",
        f"{setting.known:.0%}",
    )


def _guesses(doubt: float) -> str:
    return f"where nothing ran, reckons with times {doubt:.0%} of the way from the expected to the slowest"


def _overhead(overhead_ms: float) -> str:
    if abs(overhead_ms) < _LITTLE_MS:
        return "answers take as long as is predicted"
    return (
        f"answers take {abs(overhead_ms):.1f} ms {'more' if overhead_ms > 0.0 else 'less'} than is predicted"
    )


def _traffic(insight: pb.Insight) -> str:
    within = f"within a batch's time {_bursts(insight.burstiness)}"
    between = f"from second to second {_bursts(insight.unevenness)}"
    return f"{insight.rate_per_s:.0f} images/s; {within}, {between}{_evenly(insight.evenness)}"


def _evenly(shape: float) -> str:
    """Say so where requests are known to come evener than by chance, which is shape 1."""
    return f"; requests come more evenly than by chance ({shape:.1f})" if shape > _BY_CHANCE else ""


def _bursts(dispersion: float) -> str:
    """Variance over mean in words: 1 is chance."""
    if dispersion <= _BY_CHANCE:
        word = "as chance has it"
    else:
        word = "a little uneven" if dispersion < _IN_BURSTS else "in bursts"
    return f"{word} ({dispersion:.1f})"
