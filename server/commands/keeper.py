"""Set GPU clocks for others, within bounds, and give them back whatever happens; runs as root.

GPUs, bounds and users come from a TOML file, or from flags where a range of SM clocks is bound enough.
Other modules of the server are not imported: what runs as root stays small.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from optimizer.devices.gpu import DeviceError
from optimizer.devices.keeper.config import (
    LEASE_S,
    SOCKET,
    STATE_DIR,
    KeeperConfig,
    admission,
    check_private,
    load_config,
    parse_gpu,
)
from optimizer.devices.keeper.start import run_keeper
from optimizer.settings_table import SettingsError
from server.logs import FORMATS, configure_logging

_EXIT_ERROR = 2
_GPU = "a GPU that may be set, and the SM clocks in MHz (default: all of the card's); may be repeated"
_USER = "who may use the keeper, by name or uid; may be repeated (default: who runs it)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton keeper` takes."""
    add = parser.add_argument
    add("--config", type=Path, metavar="FILE", help="TOML file: gpu, users, groups, socket, ...; flags win")
    add("--gpu", action="append", default=[], metavar="UUID[:LOW-HIGH]", help=_GPU)
    add("--user", action="append", default=[], metavar="NAME", help=_USER)
    add("--group", action="append", default=[], metavar="NAME", help="likewise a group, by name or gid")
    add("--socket", type=Path, metavar="PATH", help=f"where to listen (default: {SOCKET})")
    add("--state-dir", type=Path, metavar="DIR", help=f"where markers are kept (default: {STATE_DIR})")
    add(
        "--lease-s",
        type=float,
        metavar="S",
        help=f"silence after which a GPU is given back (default: {LEASE_S})",
    )
    add("--log-format", choices=FORMATS, default="text", help="form of the log on stderr (default: text)")


def run(arguments: argparse.Namespace) -> int:
    """Keep until SIGTERM; 0 when all was given back, 1 when not, 2 when it cannot start."""
    configure_logging(arguments.log_format)
    try:
        return run_keeper(config_from(arguments))
    except (DeviceError, SettingsError) as error:
        print(f"boulton: {error}", file=sys.stderr)
        return _EXIT_ERROR


def config_from(arguments: argparse.Namespace) -> KeeperConfig:
    """Join the file named by `--config` and the flags. Raises SettingsError."""
    values: dict[str, Any] = {"gpus": {}}
    if arguments.config is not None:
        if os.geteuid() == 0:
            check_private(arguments.config)
        values = load_config(arguments.config)
    if arguments.gpu:
        values["gpus"] = dict(map(parse_gpu, arguments.gpu))
    if arguments.user or arguments.group:
        values |= admission("--user, --group", arguments.user, arguments.group)
    named = {"socket": arguments.socket, "state_dir": arguments.state_dir, "lease_s": arguments.lease_s}
    return KeeperConfig(**values | {key: value for key, value in named.items() if value is not None})
