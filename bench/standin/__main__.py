"""Make a rack of simulated cards and say how to use it; or show what is true of one.

eval "$(python -m bench.standin make /tmp/rack --card ampere --card pascal)"
boulton doctor
python -m bench.standin show /tmp/rack
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.standin.build import BuildError, build
from bench.standin.cards import make_card
from bench.standin.control import Rack
from bench.standin.library import RackError
from bench.standin.truth import CardTruth

_FILE = "rack"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (BuildError, RackError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    description, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m bench.standin",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True)
    make = commands.add_parser(
        "make", help="build the library, make a rack, print what to put in the environment"
    )
    make.add_argument("directory", type=Path, help="made if need be; must hold no rack yet")
    make.add_argument(
        "--card", action="append", help="pascal, volta, turing, ampere, hopper; again for more cards"
    )
    make.add_argument(
        "--privileged-uid", type=int, default=0, help="the user who may set clocks; default 0, root"
    )
    make.set_defaults(run=_make)
    show = commands.add_parser("show", help="print what is true of the cards, without NVML")
    show.add_argument("directory", type=Path, help="as given to make")
    show.set_defaults(run=_show)
    return parser


def _make(arguments: argparse.Namespace) -> None:
    directory = arguments.directory.resolve()
    cards = [
        make_card(kind, number, privileged_uid=arguments.privileged_uid)
        for number, kind in enumerate(arguments.card or ["ampere"])
    ]
    with Rack.create(build(directory) / _FILE, cards, directory) as rack:
        for name, value in rack.environment.items():
            print(f"export {name}={shlex.quote(value)}")


def _show(arguments: argparse.Namespace) -> None:
    directory = arguments.directory.resolve()
    if not (directory / _FILE).is_file():
        raise ValueError(f"there is no rack in {directory}: `python -m bench.standin make` makes one")
    with Rack.open(build(directory) / _FILE, directory) as rack:
        for card in range(len(rack)):
            print(f"{card} {rack.uuid(card)}: {_line(rack.card(card))}")


def _line(truth: CardTruth) -> str:
    changed = "as it was" if truth.is_default else "changed: " + ", ".join(_changes(truth))
    return (
        f"SM {truth.sm_clock_mhz} MHz, memory {truth.memory_clock_mhz} MHz, {truth.power_w:.1f} W simulated, "
        f"reasons {truth.event_reasons:#x}, {changed}{', lost' if truth.lost else ''}"
    )


def _changes(truth: CardTruth) -> list[str]:
    asked = {
        "SM locked to {}..{} MHz": truth.locked_sm_mhz,
        "memory locked to {}..{} MHz": truth.locked_memory_mhz,
        "application clocks {}, {} MHz": truth.application_clocks_mhz,
    }
    changes = [text.format(*clocks) for text, clocks in asked.items() if clocks is not None]
    if truth.power_limit_w != truth.default_power_limit_w:
        changes.append(f"power limit {truth.power_limit_w:g} W")
    return changes


if __name__ == "__main__":
    sys.exit(main())
