"""A small campaign, and that it would notice a card that is not given back."""

from __future__ import annotations

import io

import pytest
from nvml_rack import library_directory
from rich.console import Console

from bench.control import daemon_kills, kills
from bench.control.daemon_kills import Kill, kill_daemons
from bench.control.keeper_kills import KeeperKill, kill_keepers
from bench.control.kills import Campaign, show
from bench.control.moments import Moment
from bench.control.programs import Program
from bench.control.scene import Scene, make_scene
from bench.control.truth import is_default

UNKNOWN = 999
RESET = "nvmlDeviceResetGpuLockedClocks"


pytest_plugins = ["control_scene"]


def always(monkeypatch: pytest.MonkeyPatch, moment: Moment) -> None:
    monkeypatch.setattr(daemon_kills, "choose", lambda _generator: moment)


@pytest.mark.parametrize("moment", Moment)
def test_killed_at_any_moment_the_card_is_given_back(
    scene: Scene, keeper: Program, moment: Moment, monkeypatch: pytest.MonkeyPatch
) -> None:
    always(monkeypatch, moment)
    heard: list[Kill] = []
    (kill,) = kill_daemons(scene, 1, 0, heard.append)
    assert heard == [kill]
    assert kill.moment is moment
    assert kill.restored_s is not None or kill.late_s is not None
    assert is_default(scene, 0)
    if moment is Moment.FIRST_SET:
        assert kill.in_set or kill.changed


def test_a_card_that_is_not_given_back_breaks_the_promise(
    scene: Scene, keeper: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    always(monkeypatch, Moment.GOVERNING)
    monkeypatch.setattr(daemon_kills, "_GIVE_UP_S", 0.0)
    scene.rack.fail(RESET, UNKNOWN)
    (kill,) = kill_daemons(scene, 1, 0, lambda _: None)
    assert kill.changed
    assert not kill.kept
    assert Campaign(1, 0, [kill], []).broken == 1
    scene.rack.clear_failures()


def test_a_killed_keeper_gives_all_cards_back_when_it_is_started_again(scene: Scene, keeper: Program) -> None:
    again, (kill,) = kill_keepers(scene, keeper, 1, 0, lambda _: None)
    assert again.pid != keeper.pid
    assert kill.changed == 1
    assert kill.back_s is not None, "the daemon has its clock set again"
    assert again.end() == 0
    assert is_default(scene, 0)


def test_the_table_says_what_was_broken() -> None:
    out = io.StringIO()
    good, bad = Kill(Moment.GOVERNING, True, False, 0.02), Kill(Moment.FIRST_SET, True, True, None, 4.0)
    show(Campaign(1, 0, [good, bad], [KeeperKill(1, 0.2, None)]), Console(file=out, width=200))
    assert "1 of 3 kills left a card set for too long" in out.getvalue()
    assert "after 1 kills of the keeper not all daemons set their clock again" in out.getvalue()
    out.truncate(0)
    show(Campaign(1, 0, [good], []), Console(file=out, width=200))
    assert "every card was given back in time, after each of 1 kills" in out.getvalue()


@pytest.mark.usefixtures("started")
def test_a_whole_campaign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kills, "make_scene", lambda cards: make_scene(cards, library=library_directory()))
    campaign = kills.run_campaign(Console(file=io.StringIO()), daemons=2, keepers=1, cards=2, seed=3)
    assert len(campaign.daemons) == 2
    assert len(campaign.keepers) == 1
    facts = campaign.facts()
    assert [kill["moment"] for kill in facts["daemon_kills"]] == [k.moment for k in campaign.daemons]
