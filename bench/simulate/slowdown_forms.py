"""A card that grows too hot, as the command line writes it: `600@20-40`."""

from __future__ import annotations

import argparse
import re
from bisect import bisect_right
from collections.abc import Sequence

from optimizer.twin.gpu_profile import GpuProfile
from optimizer.twin.slowdown import Slowdown
from server.errors import ConfigError

FORM = "MHZ@FROM-TO"
HELP = """\
slowdowns:
  --slow-down 600@20-40 holds the card at 600 MHz or less from second 20 to 40 and has it give a thermal
  reason, as a card does that grows too hot. It may be repeated. The default setting and the best fixed one
  suffer the same.
"""
_PATTERN = re.compile(r"(\d{1,6})@(\d{1,7}(?:\.\d+)?)-(\d{1,7}(?:\.\d+)?)", re.ASCII)

Form = tuple[int, float, float]
"""At most so many MHz, from one second to another."""


def slowdown_form(text: str) -> Form:
    """Read one flag's value: what argparse calls a type."""
    found = _PATTERN.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected {FORM}, as in 600@20-40, got {text!r}")
    mhz, from_s, to_s = found.groups()
    if not float(from_s) < float(to_s):
        raise argparse.ArgumentTypeError(f"expected {FORM} with FROM before TO, got {text!r}")
    return int(mhz), float(from_s), float(to_s)


def slowdowns_of(forms: Sequence[Form], profile: GpuProfile) -> tuple[Slowdown, ...]:
    """Return the slowdowns of a card: each to its highest clock that is not above the one given.

    Raises ConfigError where the card has no clock so low.
    """
    clocks_mhz = profile.sm_clocks_mhz
    for mhz, _, _ in forms:
        if mhz < clocks_mhz[0]:
            raise ConfigError(
                f"--slow-down {mhz}@...: the lowest clock of {profile.name} is {clocks_mhz[0]} MHz"
            )
    return tuple(
        Slowdown(clocks_mhz[bisect_right(clocks_mhz, mhz) - 1], from_s, to_s) for mhz, from_s, to_s in forms
    )
