"""Try GPU control on simulated cards: rehearsal, kills, failures. Exits 1 when a promise was broken."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from bench.console import make_console
from bench.control import failures, kills, rehearsal
from bench.control.programs import DidNotStart
from bench.flags import number, whole
from bench.serving.machine import this_machine
from bench.serving.report import RESULTS
from bench.standin.build import BuildError

_MANY = 1_000_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for; 0 when every promise was kept, 1 when one was broken, 2 when it cannot run."""
    arguments = _parser().parse_args(argv)
    console = make_console()
    try:
        kept, facts = arguments.run(arguments, console)
    except (BuildError, DidNotStart) as error:
        console.print(f"cannot run: {error}", style="red", markup=False)
        return 2
    except KeyboardInterrupt:
        console.print("interrupted", style="yellow")
        return 130
    if arguments.save:
        console.print(f"saved {_save(arguments.what, facts)}")
    return 0 if kept else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.control", description=__doc__)
    which = parser.add_subparsers(dest="what", required=True)
    one = which.add_parser("rehearsal", help=rehearsal.__doc__)
    one.add_argument("--seconds", type=number(0, 3600), default=60.0, help="of load (default: 60)")
    one.set_defaults(run=_rehearsal)
    two = which.add_parser("kills", help=kills.__doc__)
    two.add_argument("--daemon", type=whole(0, _MANY), default=1000, help="kills of daemons (default: 1000)")
    two.add_argument("--keeper", type=whole(0, _MANY), default=200, help="kills of keepers (default: 200)")
    two.add_argument("--cards", type=whole(1, 16), default=4, help="simulated cards (default: 4)")
    two.set_defaults(run=_kills)
    three = which.add_parser("failures", help=failures.__doc__)
    three.add_argument("--cards", type=whole(1, 16), default=5, help="trials at once (default: 5)")
    three.add_argument("--function", action="append", default=[], help="only this one; may be repeated")
    three.add_argument(
        "--code", action="append", type=whole(1, 999), default=[], help="only this one; likewise"
    )
    three.add_argument(
        "--journal", type=Path, metavar="FILE", help="add each case here; those in it are not tried again"
    )
    three.set_defaults(run=_failures)
    for each in (one, two, three):
        each.add_argument("--seed", type=whole(0, _MANY), default=0)
        each.add_argument("--save", action="store_true", help=f"keep the result as JSON in {RESULTS.name}/")
    return parser


def _rehearsal(arguments: argparse.Namespace, console: Console) -> tuple[bool, Mapping[str, object]]:
    found = rehearsal.rehearse(console, seconds=arguments.seconds, seed=arguments.seed)
    rehearsal.show(found, console)
    return found.kept, asdict(found)


def _kills(arguments: argparse.Namespace, console: Console) -> tuple[bool, Mapping[str, object]]:
    campaign = kills.run_campaign(
        console,
        daemons=arguments.daemon,
        keepers=arguments.keeper,
        cards=arguments.cards,
        seed=arguments.seed,
    )
    kills.show(campaign, console)
    return not campaign.broken, campaign.facts()


def _failures(arguments: argparse.Namespace, console: Console) -> tuple[bool, Mapping[str, object]]:
    found = failures.run_all(
        console,
        at_once=arguments.cards,
        functions=arguments.function,
        codes=arguments.code,
        journal=arguments.journal,
    )
    failures.show(found, console)
    return all(case.kept for case in found), {"cases": [asdict(case) for case in found]}


def _save(what: str, facts: Mapping[str, object]) -> Path:
    now = datetime.now(UTC)
    path = RESULTS / f"control-{what}-{now:%Y%m%d-%H%M%S}.json"
    command = "python -m bench.control " + " ".join(sys.argv[1:])
    head = {"command": command, "taken_at": now.isoformat(), "machine": asdict(this_machine())}
    RESULTS.mkdir(exist_ok=True)
    path.write_text(
        json.dumps({**head, "simulated": "the cards", **facts}, indent=1) + "\n", encoding="utf-8"
    )
    return path


if __name__ == "__main__":
    sys.exit(main())
