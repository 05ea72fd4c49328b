"""How often neighbours of a virtual machine shared its cores while something was measured.

A process of its own looks once a second at every core, for a millisecond; see `undisturbed` for what it sees
and why nothing inside the machine tells.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile
from types import TracebackType

import numpy as np

from bench.undisturbed import DISTURBED, spin

_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Looks:
    """What was seen.

    Args:
        spins_s: of each core, how long the loop took, look by look.
    """

    spins_s: Sequence[Sequence[float]]

    @property
    def disturbed(self) -> float | None:
        """Which part of the looks found a core shared; None when there were none.

        The shortest look is taken for undisturbed: had all of them been disturbed, this would be 0.
        """
        spins_s = np.asarray(self.spins_s)
        return float(np.mean(spins_s > DISTURBED * spins_s.min())) if spins_s.size else None

    def __str__(self) -> str:
        if self.disturbed is None:
            return "nobody looked for neighbours on the same cores"
        return f"neighbours shared a core in {self.disturbed:.0%} of {np.size(self.spins_s)} looks"


class Neighbours:
    """Looks for neighbours until it is left; `looks` holds what it saw then."""

    def __init__(self) -> None:
        self.looks = Looks([])

    def __enter__(self) -> Neighbours:
        """Start looking."""
        self._said = TemporaryFile("w+")  # a pipe would be full one day
        command = [sys.executable, "-m", "bench.neighbours"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._said)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop looking."""
        self._process.terminate()
        self._process.wait()
        with self._said:
            self._said.seek(0)
            self.looks = read(self._said.read())


def read(said: str) -> Looks:
    """Return what a process wrote that looked; a line that was cut short does not count."""
    lines = [line.split() for line in said.splitlines(keepends=True) if line.endswith("\n")]
    return Looks([[float(word) for word in line] for line in lines])


def look() -> list[float]:
    """Spin on every core that this process may use; return the seconds of each."""
    cores = sorted(os.sched_getaffinity(0))
    try:
        return [_spin_on(core) for core in cores]
    finally:
        os.sched_setaffinity(0, cores)


def _spin_on(core: int) -> float:
    os.sched_setaffinity(0, {core})
    return spin()


def main() -> None:
    """Write a line of seconds for every look, for ever, or until nobody reads it."""
    parent = os.getppid()
    while os.getppid() == parent:
        print(*look(), flush=True)
        time.sleep(_EVERY_S)


if __name__ == "__main__":
    main()
