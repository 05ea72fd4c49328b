"""`python -m bench.readings`: what is read of a GPU against nvidia-smi, and its energy counted two ways.

Only reads: no clock, limit or mode is set. The exit code is 1 when something disagrees.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.readings.energy_check import EnergyCheck, check_energy
from bench.readings.nvidia_smi import Agreement, NoNvidiaSmi, compare_with_nvidia_smi
from optimizer.devices.gpu import DeviceError
from optimizer.devices.nvml.discovery import select_gpu
from optimizer.devices.nvml.library import Nvml

ALLOWED_SHARE = 0.05


def main(argv: Sequence[str] | None = None) -> int:
    """Compare and print; return the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        with Nvml() as nvml:
            card = select_gpu(nvml, arguments.gpu, os.environ.get("CUDA_VISIBLE_DEVICES"))
            figures = compare_with_nvidia_smi(nvml, card)
            energy = check_energy(card, arguments.seconds)
            simulated = nvml.simulated
    except (DeviceError, NoNvidiaSmi) as error:
        print(f"bench.readings: {error}", file=sys.stderr)
        return 1
    _print(figures, energy, simulated=simulated)
    if arguments.json:
        report = {
            "simulated": simulated,
            "figures": [asdict(figure) for figure in figures],
            "energy": asdict(energy) | {"difference_share": energy.difference_share},
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if _agrees(energy) and all(figure.agrees for figure in figures) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.readings", description=__doc__)
    parser.add_argument("--gpu", metavar="GPU", help="index or UUID (default: the first)")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="how long energy is counted")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the report")
    return parser


def _agrees(energy: EnergyCheck) -> bool:
    return energy.difference_share is not None and abs(energy.difference_share) <= ALLOWED_SHARE


def _print(figures: Sequence[Agreement], energy: EnergyCheck, *, simulated: bool) -> None:
    if simulated:
        print("The NVML library is the stand-in: every figure is simulated.")
    for figure in figures:
        before, after = figure.ours
        ours = before if before == after else f"{before} .. {after}"
        print(f"{_verdict(figure.agrees)} {figure.figure:20} {ours}; nvidia-smi {figure.theirs}")
    share = energy.difference_share
    summed = "not to be had" if energy.summed_j is None else f"{energy.summed_j:.1f} J"
    difference = "" if share is None else f", {share:+.2%}"
    print(
        f"{_verdict(_agrees(energy))} energy in {energy.seconds:.1f} s: counter "
        f"{energy.counted_j:.1f} J, sum of power ({energy.field}) {summed}{difference}"
    )


def _verdict(agrees: bool, /) -> str:
    return "agrees  " if agrees else "DIFFERS "


if __name__ == "__main__":
    sys.exit(main())
