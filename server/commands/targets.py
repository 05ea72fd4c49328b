"""Show or change what the governor aims at: SLO, prices, power cap, form.

`boulton targets` shows them, `boulton targets set NAME=VALUE ...` changes some while the server runs, and
`boulton targets load FILE` all of them. What is set outlives a restart of the server.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from optimizer.energy_price import PriceSchedule, load_price_schedule
from optimizer.settings_table import SettingsError
from optimizer.targets import Targets, load_targets
from protos import boulton_pb2 as pb
from server.client.operator import OperatorClient, add_operator_arguments, ask_operator, schedule_of
from server.errors import ConfigError
from server.governing.operator_messages import targets_message

NAMES = tuple(field.name for field in fields(Targets))
LIFTED = "none"
_PRICE = "energy_price_per_kwh"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton targets` takes."""
    add = parser.add_argument
    add("action", nargs="?", choices=("show", "set", "load"), default="show", help="default: show")
    add("what", nargs="*", metavar="NAME=VALUE | FILE", help=f"NAME is one of {', '.join(NAMES)}")
    add_operator_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show, or change and then show; 1 when the server cannot be reached or refuses. Raises `ConfigError`."""
    wanted = _wanted(arguments.action, arguments.what)
    return ask_operator(arguments, lambda operator: _show(_in_force(operator, wanted)))


def _show(targets: pb.Targets) -> None:
    print(targets_text(targets))
    if targets.not_kept:
        print(f"in force, but a restart of the server loses them: {targets.not_kept}", file=sys.stderr)


def _in_force(operator: OperatorClient, wanted: pb.Targets | None) -> pb.Targets:
    return operator.targets() if wanted is None else operator.set_targets(wanted)


def _wanted(action: str, what: Sequence[str]) -> pb.Targets | None:
    if action == "set":
        return parse_assignments(what)
    if action == "load":
        if len(what) != 1:
            raise ConfigError("`boulton targets load` takes one TOML file")
        return _load(Path(what[0]))
    if what:
        raise ConfigError("`boulton targets show` takes nothing more; NAME=VALUE goes after `set`")
    return None


def parse_assignments(words: Sequence[str]) -> pb.Targets:
    """Read `NAME=VALUE` words; the power cap may be `none`, the energy price a CSV file by time of day.

    Raises:
        ConfigError: a name is unknown or given twice, or a value is not of its kind.
    """
    given: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not value:
            raise ConfigError(f"expected NAME=VALUE such as slo_p99_ms=50, got {word!r}")
        if name not in NAMES:
            raise ConfigError(f"unknown target {name!r}; allowed are {', '.join(NAMES)}")
        if name in given:
            raise ConfigError(f"{name} is given twice")
        given[name] = _value(name, value)
    if not given:
        raise ConfigError("`boulton targets set` needs at least one NAME=VALUE")
    return _message(given)


def _value(name: str, text: str) -> str | float | PriceSchedule:
    if name == "form":
        return text
    if name == "power_cap_w" and text == LIFTED:
        return 0.0
    number = _number(text)
    if number is not None:
        return number
    if name == _PRICE:
        return _schedule(Path(text))
    raise ConfigError(f"{name} = {text!r} is not a number")


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _schedule(path: Path) -> PriceSchedule:
    try:
        return load_price_schedule(path)
    except SettingsError as error:
        raise ConfigError(f"{_PRICE} is neither a number nor a file of prices: {error}") from error


def _load(path: Path) -> pb.Targets:
    try:
        targets = load_targets(path)
    except SettingsError as error:
        raise ConfigError(str(error)) from error
    message = targets_message(targets)
    if targets.power_cap_w is None:
        message.power_cap_w = 0.0  # lifts a cap that is in force
    return message


def _message(given: dict[str, Any]) -> pb.Targets:
    price = given.get(_PRICE)
    if not isinstance(price, PriceSchedule):
        return pb.Targets(**given)
    steps = [pb.PriceStep(start_s=step.start_s, price_per_kwh=step.price_per_kwh) for step in price.steps]
    return pb.Targets(**{**given, _PRICE: None}, energy_price_steps=steps)


def targets_text(targets: pb.Targets) -> str:
    """Write targets as a TOML file would give them, prices by time of day as a comment."""
    return "\n".join(f"{name} = {_shown(targets, name)}" for name in NAMES)


def _shown(targets: pb.Targets, name: Any) -> str:  # noqa: ANN401  # the stubs list the names as literals
    schedule = schedule_of(targets)
    if name == _PRICE and schedule is not None:
        return f"by time of day: {schedule}"
    if not targets.HasField(name):
        return LIFTED
    value = getattr(targets, name)
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"
