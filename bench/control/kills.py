"""The campaign of kills: what was done, as a table for people and JSON for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.control.daemon_kills import LIMIT_S, Kill, kill_daemons
from bench.control.keeper_kills import KeeperKill, kill_keepers
from bench.control.moments import Moment
from bench.control.programs import Program, await_keeper, start_keeper
from bench.control.scene import Scene, make_scene


@dataclass(frozen=True, slots=True)
class Campaign:
    """What a campaign found."""

    cards: int
    seed: int
    daemons: Sequence[Kill]
    keepers: Sequence[KeeperKill]

    @property
    def broken(self) -> int:
        """How many cards were not given back in time."""
        return sum(not kill.kept for kill in self.daemons) + sum(not kill.kept for kill in self.keepers)

    def facts(self) -> dict[str, object]:
        """Everything, for JSON."""
        return {
            "cards": self.cards,
            "seed": self.seed,
            "limit_s": LIMIT_S,
            "daemon_kills": [asdict(kill) for kill in self.daemons],
            "keeper_kills": [asdict(kill) for kill in self.keepers],
        }


def run_campaign(console: Console, *, daemons: int, keepers: int, cards: int, seed: int) -> Campaign:
    """Kill daemons, then keepers. Raises BuildError, DidNotStart."""
    with make_scene(cards) as scene, Progress(console=console, transient=True) as progress:
        keeper = start_keeper(scene)
        try:
            await_keeper(scene, keeper)
            killed = _daemons(scene, daemons, seed, progress)
            keeper, killed_keepers = _keepers(scene, keeper, keepers, seed, progress)
        finally:
            keeper.end()
    return Campaign(cards, seed, killed, killed_keepers)


def _daemons(scene: Scene, kills: int, seed: int, progress: Progress) -> list[Kill]:
    task = progress.add_task("daemons killed", total=kills)
    return kill_daemons(scene, kills, seed, lambda _: progress.advance(task)) if kills else []


def _keepers(
    scene: Scene, keeper: Program, kills: int, seed: int, progress: Progress
) -> tuple[Program, list[KeeperKill]]:
    task = progress.add_task("keepers killed", total=kills)
    if not kills:
        return keeper, []
    return kill_keepers(scene, keeper, kills, seed, lambda _: progress.advance(task))


def show(campaign: Campaign, console: Console) -> None:
    """Print the table."""
    table = Table(title=f"Simulated cards: {campaign.cards}. Given back within {LIMIT_S:g} s?")
    for heading in ("killed", "times", "card was set", "in a set", "in time", "median s", "longest s"):
        table.add_column(heading, justify="left" if heading == "killed" else "right")
    for moment in Moment:
        _row(table, f"daemon, {moment}", [kill for kill in campaign.daemons if kill.moment is moment])
    _row(table, "daemon, all", campaign.daemons)
    if campaign.keepers:
        _keeper_row(table, campaign.keepers)
    console.print(table)
    _conclude(campaign, console)


def _row(table: Table, name: str, kills: Sequence[Kill]) -> None:
    times_s = [kill.restored_s for kill in kills if kill.restored_s is not None and kill.changed]
    changed, in_set = sum(kill.changed for kill in kills), sum(kill.in_set for kill in kills)
    kept = sum(kill.kept for kill in kills)
    table.add_row(name, str(len(kills)), str(changed), str(in_set), f"{kept}", *_times(times_s))


def _keeper_row(table: Table, kills: Sequence[KeeperKill]) -> None:
    times_s = [kill.restored_s for kill in kills if kill.restored_s is not None and kill.changed]
    changed = sum(kill.changed > 0 for kill in kills)
    kept = sum(kill.kept for kill in kills)
    table.add_row("keeper, from its restart", str(len(kills)), str(changed), "-", f"{kept}", *_times(times_s))


def _times(times_s: Sequence[float]) -> tuple[str, str]:
    if not times_s:
        return "-", "-"
    ordered = sorted(times_s)
    return f"{ordered[len(ordered) // 2]:.3f}", f"{ordered[-1]:.3f}"


def _conclude(campaign: Campaign, console: Console) -> None:
    total = len(campaign.daemons) + len(campaign.keepers)
    if campaign.broken:
        console.print(f"{campaign.broken} of {total} kills left a card set for too long", style="red")
    else:
        console.print(f"every card was given back in time, after each of {total} kills", style="green")
    away = sum(kill.back_s is None for kill in campaign.keepers)
    if away:
        console.print(f"after {away} kills of the keeper not all daemons set their clock again", style="red")
