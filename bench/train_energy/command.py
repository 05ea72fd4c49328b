"""Train networks on this machine and study what it costs: networks x batch sizes x devices.

Pictures are the 1797 handwritten digits that come with scikit-learn. Energy is the device's own: RAPL on the
CPU, NVML on GPUs, and "not measured" elsewhere. A second call goes on where the first was interrupted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.flags import number, whole
from server.zoo.catalogue import NETWORKS

NETS, BATCHES, REPEATS, EPOCHS = ("mobilenetv2", "resnet50", "densenet121"), (16, 64), 5, 5
QUICK_NETS, QUICK_REPEATS, QUICK_EPOCHS = ("mobilenetv2", "resnet50"), 2, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton train-energy` takes."""
    add = parser.add_argument
    add("--network", action="append", metavar="NAME", help=_NETWORK)
    add("--batch", action="append", type=whole(2, 4096), metavar="N", help=_BATCH)
    add("--device", action="append", metavar="DEV", help=_DEVICE)
    add("--repeats", type=whole(1, 1000), metavar="N", help=f"seeds a cell (default: {REPEATS})")
    add("--epochs", type=whole(1, 1000), metavar="N", help=f"of each training (default: {EPOCHS})")
    add("--image-size", type=whole(8, 512), default=32, metavar="N", help="pixels (default: 32)")
    add("--images", type=whole(2, 1347), metavar="N", help="training images used (default: all 1347)")
    add("--learning-rate", type=number(0.0, 10.0), default=1e-3, metavar="R", help="Adam's (default: 0.001)")
    add("--threads", type=whole(1, 1024), metavar="N", help="of the CPU (default: PyTorch's choice)")
    add("--least-f1", type=number(0.0, 1.0, zero=True), default=0.0, metavar="F", help=_F1)
    add("--quick", action="store_true", help=_QUICK)
    add("--output", type=Path, default=Path("train-energy-out"), metavar="DIR", help=_OUTPUT)


_NETWORK = (
    f"of the zoo ({', '.join(NETWORKS)}), or module:function; may be repeated (default: {', '.join(NETS)})"
)
_BATCH = f"batch size; may be repeated (default: {', '.join(map(str, BATCHES))})"
_DEVICE = "cpu, cuda:0, cuda:0+1 (both at once) or auto; may be repeated (default: auto)"
_F1 = "a training below has failed and is left out of the report (default: 0)"
_OUTPUT = "for runs and report (default: train-energy-out)"
_QUICK = (
    f"where not given: {', '.join(QUICK_NETS)}, {QUICK_REPEATS} repeats, {QUICK_EPOCHS} epochs; minutes on"
    " two idle cores, and no study worth the name"
)


def run(arguments: argparse.Namespace) -> int:
    """Train what is missing, compare and report."""
    # Its help is to be had without PyTorch.
    from bench.train_energy.performing import perform

    return perform(arguments)
