from __future__ import annotations

import json

import pytest

from protos import boulton_pb2 as pb
from server.commands.learned import MOST_SETTINGS, learned_json, learned_lines

TRAFFIC = (
    "  traffic   1444 images/s; within a batch's time as chance has it (1.0), from second to second "
    "in bursts (5.2)"
)


def setting(batch: int, mhz: int | None = 1000, **changes: float) -> pb.TriedSetting:
    facts = {"batch_ms": 2.0 * batch, "power_w": 80.0, "known": 0.9} | changes
    return pb.TriedSetting(batch=batch, sm_clock_mhz=mhz, **facts)


def learned(*tried: pb.TriedSetting, **changes: float) -> pb.Learned:
    facts = {"idle_power_w": 23.4, "doubt": 0.1, "rate_per_s": 1444.4, "burstiness": 1.0, "unevenness": 5.25}
    insight = pb.Insight(tried=tried, **(facts | changes))
    return pb.Learned(policy="p", learns=True, file="/x", state_json='{"a": [[1.5]]}', insight=insight)


def said(message: pb.Learned) -> str:
    return "\n".join(learned_lines(message))


def rows(message: pb.Learned) -> list[list[str]]:
    return [line.split() for line in learned_lines(message) if line.endswith("%") and "guesses" not in line]


def test_what_was_learned_is_told_in_sentences_and_a_table() -> None:
    text = said(learned(setting(16, batch_ms=5.404, power_w=117.2), setting(4, 1020, known=0.5)))
    assert text.splitlines() == [
        "learned by p, kept in /x:",
        "  machine   what batches take where some ran, and W while they run (23 W idle):",
        "          clock MHz  batch       ms  ms/image     W  known",
        "               1000     16     5.40     0.338   117    90%",
        "               1020      4     8.00     2.000    80    50%",
        "  guesses   where nothing ran, reckons with times 10% of the way from the expected to the slowest",
        "  latency   answers take as long as is predicted",
        TRAFFIC,
    ]
    assert "[[" not in text


@pytest.mark.parametrize(
    ("overhead_ms", "expected"),
    [(1.26, "answers take 1.3 ms more than"), (-0.4, "answers take 0.4 ms less than"), (0.04, "as long as")],
)
def test_the_overhead_of_latency_has_a_direction(overhead_ms: float, expected: str) -> None:
    assert expected in said(learned(overhead_ms=overhead_ms))


@pytest.mark.parametrize(
    ("evenness", "expected"), [(0.0, ""), (1.0, ""), (6.25, "more evenly than by chance (6.2)")]
)
def test_evenness_is_told_where_it_was_learned(evenness: float, expected: str) -> None:
    text = said(learned(evenness=evenness))
    assert text.endswith(f"; requests come {expected}" if expected else TRAFFIC)


def test_what_nobody_measured_is_not_made_up() -> None:
    message = learned(setting(4, None))
    message.insight.ClearField("idle_power_w")
    message.insight.tried[0].ClearField("power_w")
    assert "where some ran; no energy was measured:" in said(message)
    assert rows(message) == [["-", "4", "8.00", "2.000", "-", "90%"]]
    assert "no batch was learned from yet" in said(learned())


def test_of_many_settings_some_stand_for_the_others() -> None:
    many = [
        setting(batch, mhz, known=batch / 200) for mhz in range(100, 1300, 100) for batch in range(1, 129)
    ]
    shown = rows(learned(*many))
    assert len(shown) == MOST_SETTINGS
    assert f"and {len(many) - MOST_SETTINGS} more like these" in said(learned(*many))
    assert [int(row[0]) for row in shown] == sorted(int(row[0]) for row in shown)
    few = learned(setting(8, known=0.2), setting(9, known=0.4), setting(15, known=0.3), setting(16))
    assert [row[1] for row in rows(few)] == ["9", "16"]


def test_a_policy_that_cannot_tell_says_where_its_state_is() -> None:
    mute = pb.Learned(policy="p", learns=True, state_json="{}")
    assert list(learned_lines(mute)) == [
        "learned by p:",
        "  it cannot tell in words; --json prints what it saves",
    ]
    assert list(learned_lines(pb.Learned(policy="fixed"))) == ["the policy fixed learns nothing"]


def test_json_holds_all_that_is_saved() -> None:
    assert json.loads(learned_json(learned())) == {
        "policy": "p",
        "learns": True,
        "file": "/x",
        "state": {"a": [[1.5]]},
    }
    assert json.loads(learned_json(pb.Learned(policy="fixed")))["state"] == {}
