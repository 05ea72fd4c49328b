"""Give GPUs back at once, keeper or no keeper: clocks to the driver, the power limit as it was; runs as root.

Which GPUs: those given by `--gpu`, else those in the keeper's configuration and those that have a marker.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from optimizer.devices.gpu import DeviceError
from optimizer.devices.keeper.config import STATE_DIR, load_config
from optimizer.devices.keeper.marker import is_uuid
from optimizer.devices.keeper.reset import left_over, reset
from optimizer.devices.nvml.discovery import select_gpu
from optimizer.devices.nvml.library import Nvml
from optimizer.settings_table import SettingsError

_EXIT_ERROR = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton reset` takes."""
    add = parser.add_argument
    add("--gpu", action="append", default=[], metavar="GPU", help="index or UUID of the GPU; may be repeated")
    add("--config", type=Path, metavar="FILE", help="the keeper's TOML file, for its GPUs and its state_dir")
    add("--state-dir", type=Path, metavar="DIR", help=f"the keeper's markers (default: {STATE_DIR})")


def run(arguments: argparse.Namespace) -> int:
    """Reset and say what was done; 1 when something failed, 2 when there is nothing to begin with."""
    try:
        return _reset(arguments)
    except (DeviceError, SettingsError) as error:
        print(f"boulton: {error}", file=sys.stderr)
        return _EXIT_ERROR


def _reset(arguments: argparse.Namespace) -> int:
    config = {} if arguments.config is None else load_config(arguments.config)
    state_dir = arguments.state_dir or Path(str(config.get("state_dir", STATE_DIR)))
    listed = config.get("gpus", {})
    configured = listed if isinstance(listed, dict) else {}
    named = [] if arguments.gpu else sorted({*configured, *left_over(state_dir)})
    if not (arguments.gpu or named):
        raise SettingsError(
            f"which GPU? No marker is in {state_dir}, so no keeper has left one changed: name it by --gpu "
            "(`boulton doctor` lists them), or give the keeper's --config"
        )
    failed = False
    with Nvml() as nvml:
        uuids = [_uuid(nvml, gpu) for gpu in arguments.gpu] or named
        for done in reset(nvml, list(dict.fromkeys(uuids)), state_dir):
            print(f"{done.uuid}: {done.text}" if done.uuid else done.text)
            failed |= not done.succeeded
    return int(failed)


def _uuid(nvml: Nvml, wanted: str) -> str:
    """The UUID of the GPU that is wanted. One that is not listed may be lost: its UUID is taken as it is."""
    try:
        return select_gpu(nvml, wanted, None).uuid
    except DeviceError:
        if is_uuid(wanted):
            return wanted
        raise
