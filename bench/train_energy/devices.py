"""What trains: the CPU, a GPU, or several GPUs at once; and how each is measured."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from bench.train_energy.meters import CpuUse, EnergyMeter, SampledUse, UseMeter
from optimizer.devices.cpu_package import RaplCpu
from optimizer.devices.gpu import DeviceError
from optimizer.devices.nvml.gpu import NvmlGpu
from optimizer.devices.nvml.library import Card, Nvml
from server.errors import ConfigError

CPU = "cpu"
AUTO = "auto"
_SPELLING = re.compile(r"cuda:(\d+(?:\+\d+)*)")


@dataclass(frozen=True, slots=True)
class Trainer:
    """A device, or several of them as one.

    Args:
        name: as runs call it.
        gpus: CUDA's indices; () for the CPU.
        energy: of all of them.
        use: of all of them.
        why_not_measured: why there is no energy, and what to do; empty while nothing is known against it.
    """

    name: str
    gpus: tuple[int, ...]
    energy: EnergyMeter
    use: UseMeter
    why_not_measured: str = ""
    _closing: tuple[NvmlGpu, ...] = field(default=(), repr=False)

    @property
    def device(self) -> torch.device:
        """Where pictures and network are put."""
        return torch.device("cuda", self.gpus[0]) if self.gpus else torch.device(CPU)

    def spread(self, network: nn.Module) -> nn.Module:
        """Put the network where it is trained; on several GPUs each takes its part of a batch."""
        placed = network.to(self.device)
        return nn.DataParallel(placed, list(self.gpus)) if len(self.gpus) > 1 else placed

    def finish(self) -> None:
        """Wait until everything that was asked for is done."""
        for index in self.gpus:
            torch.cuda.synchronize(index)

    def close(self) -> None:
        """End whatever reads the devices."""
        for gpu in self._closing:
            gpu.close()


def spell_out(wanted: Sequence[str], gpus: int) -> tuple[str, ...]:
    """Return the devices meant: `auto` is every GPU alone and all of them together, or the CPU without any.

    Raises ConfigError when one is misspelt or not there.
    """
    found: list[str] = []
    for name in wanted:
        found += _automatic(gpus) if name == AUTO else [name]
    for name in found:
        if (strange := [index for index in indices(name) if index >= gpus]) or len(set(indices(name))) < len(
            indices(name)
        ):
            what = f"there are {gpus} GPUs that PyTorch can use" if strange else "a GPU is named twice"
            raise ConfigError(f"--device {name}: {what}; give {CPU}, cuda:0, cuda:0+1 or {AUTO}")
    return tuple(dict.fromkeys(found))


def indices(name: str) -> tuple[int, ...]:
    """Return CUDA's indices in a device's name, () for the CPU. Raises ConfigError when it is misspelt."""
    if name == CPU:
        return ()
    match = _SPELLING.fullmatch(name)
    if match is None:
        raise ConfigError(f"--device {name}: give {CPU}, cuda:0, cuda:0+1 (both at once) or {AUTO}")
    return tuple(int(index) for index in match[1].split("+"))


@contextmanager
def open_trainer(name: str) -> Iterator[Trainer]:
    """Make a device ready to train and to be measured; `name` as `spell_out` returns it."""
    if name == CPU:
        yield cpu_trainer()
        return
    gpus, nvml = indices(name), Nvml()
    try:
        trainer = gpu_trainer(name, gpus, _cards(nvml, gpus), simulated=nvml.simulated)
    except DeviceError as error:
        trainer = Trainer(name, gpus, EnergyMeter(()), SampledUse((), DeviceError), str(error))
    try:
        yield trainer
    finally:
        trainer.close()
        nvml.close()


def cpu_trainer(rapl: RaplCpu | None = None) -> Trainer:
    """Return the CPU, measured by RAPL where it can be read."""
    meter = rapl or RaplCpu()
    meter.read()
    return Trainer(CPU, (), EnergyMeter((meter,)), CpuUse(), meter.why_not_measured or "")


def gpu_trainer(name: str, gpus: tuple[int, ...], cards: Sequence[Card], *, simulated: bool) -> Trainer:
    """Return GPUs measured by NVML: `cards` are the same ones, in any order."""
    meters = tuple(NvmlGpu(card, simulated=simulated) for card in cards)
    use = SampledUse([card.use for card in cards], DeviceError)
    return Trainer(name, gpus, EnergyMeter(meters), use, _closing=meters)


def _automatic(gpus: int) -> list[str]:
    alone = [f"cuda:{index}" for index in range(gpus)]
    together = ["cuda:" + "+".join(str(index) for index in range(gpus))] if gpus > 1 else []
    return [*alone, *together] or [CPU]


def _cards(nvml: Nvml, gpus: Sequence[int]) -> tuple[Card, ...]:
    """CUDA's GPUs by UUID: NVML may count them in another order."""
    nvml.open()
    return tuple(nvml.card(f"GPU-{torch.cuda.get_device_properties(index).uuid}") for index in gpus)
