"""What a measurement ran on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("boulton", "grpcio", "onnxruntime", "numpy", "protobuf", "uvloop")


@dataclass(frozen=True, slots=True)
class Machine:
    """The hardware and the versions that a figure belongs to."""

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    versions: dict[str, str]
    load_before: float

    def __str__(self) -> str:
        packages = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return (
            f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB, Linux {self.kernel}\n"
            f"Python {self.python}, {packages}\n"
            f"load average before: {self.load_before:.2f}"
        )


def this_machine() -> Machine:
    """Read the machine that this runs on."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        cpu=_cpu_name(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=memory_bytes / 2**30,
        kernel=platform.release(),
        python=platform.python_version(),
        versions={name: _version(name) for name in PACKAGES},
        load_before=os.getloadavg()[0],
    )


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
