"""Install the servers that the benchmark compares with, each into an environment of its own.

    python -m bench.peers.install [--into .peers] [--python /usr/bin/python3]

PyTriton's workers load the libpython that the system's linker finds, so its environment is made with the
system's own interpreter where there is one: another build of the same Python does not match that library.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SYSTEM_PYTHON = Path("/usr/bin/python3")


@dataclass(frozen=True, slots=True)
class Peer:
    """A server and what its environment needs."""

    name: str
    packages: tuple[str, ...]
    probe: str


PEERS = (
    Peer("pytriton", ("nvidia-pytriton>=0.7,<0.8", "onnxruntime>=1.23"), "pytriton.triton"),
    Peer("mlserver", ("mlserver>=1.7,<1.8", "onnxruntime>=1.23"), "mlserver"),
)


def interpreter(directory: Path, peer: str) -> Path:
    """Where the interpreter of a peer's environment is, installed or not."""
    return directory / peer / "bin" / "python"


def install(peer: Peer, directory: Path, python: Path) -> str:
    """Make the environment anew; return an empty string, or why it is not usable."""
    home = directory / peer.name
    shutil.rmtree(home, ignore_errors=True)
    chosen = interpreter(directory, peer.name)
    commands = (
        [str(python), "-m", "venv", str(home)],
        [str(chosen), "-m", "pip", "install", "--quiet", *peer.packages],
        [str(chosen), "-c", f"import onnxruntime, {peer.probe}"],
    )
    for command in commands:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            return f"`{' '.join(command)}` exited {done.returncode}:\n{done.stdout[-2000:]}"
    return ""


def main() -> int:
    """Install all; return the number that failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, default=Path(".peers"))
    parser.add_argument("--python", type=Path, help="interpreter for the environments")
    arguments = parser.parse_args()
    python = arguments.python or (
        SYSTEM_PYTHON if _can_make_environments(SYSTEM_PYTHON) else Path(sys.executable)
    )
    failed = 0
    for peer in PEERS:
        print(f"{peer.name}: installing {', '.join(peer.packages)} for {python} ...", flush=True)
        trouble = install(peer, arguments.into.resolve(), python)
        print(f"{peer.name}: {trouble or 'ready'}", flush=True)
        failed += bool(trouble)
    return failed


def _can_make_environments(python: Path) -> bool:
    if not python.exists():
        return False
    code = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))"
    return subprocess.run([str(python), "-c", code], capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
