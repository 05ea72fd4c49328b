"""How long and how often to measure."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """Common to all benchmarks.

    Args:
        rounds: how often every subject is measured, in turns.
        seconds: length of one measurement.
        soak_s: length of the soak.
        front_ends: through how many front ends the soak goes; 0: through none.
        peers: directory that holds the peers' environments.
    """

    rounds: int = 7
    seconds: float = 5.0
    soak_s: float = 600.0
    front_ends: int = 0
    peers: Path = Path(".peers")


QUICK = Settings(rounds=2, seconds=1.5, soak_s=20.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that every benchmark has."""
    parser.add_argument("--quick", action="store_true", help="a short run to see that it works; not a result")
    parser.add_argument("--rounds", type=int, help=f"rounds, default {Settings().rounds}")
    parser.add_argument("--seconds", type=float, help=f"per measurement, default {Settings().seconds:g}")
    parser.add_argument("--soak-s", type=float, help=f"length of the soak, default {Settings().soak_s:g}")
    parser.add_argument("--front-ends", type=int, default=0, help="soak so many front ends, default none")
    parser.add_argument("--peers", type=Path, help="where the peers' environments are, default .peers")
    parser.add_argument("--save", action="store_true", help="write the result as JSON into bench/results")


def from_arguments(arguments: argparse.Namespace) -> Settings:
    """Return the settings: what was given, otherwise the defaults of a full or a quick run."""
    default = QUICK if arguments.quick else Settings()
    return Settings(
        rounds=arguments.rounds or default.rounds,
        seconds=arguments.seconds or default.seconds,
        soak_s=arguments.soak_s or default.soak_s,
        front_ends=arguments.front_ends,
        peers=(arguments.peers or default.peers).resolve(),
    )
