"""Compile the stand-in `libnvidia-ml.so.1` with the system's C compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

LIBRARY = "libnvidia-ml.so.1"
SOURCES = Path(__file__).parent / "nvml"
_FLAGS = (
    "-std=c11 -D_GNU_SOURCE -O2 -shared -fPIC -pthread -fvisibility=hidden -Wall -Wextra "
    f"-Wl,-soname,{LIBRARY}"
).split()


class BuildError(Exception):
    """The library cannot be built; says what is missing or what the compiler said."""


def build(directory: Path, extra_flags: Sequence[str] = ()) -> Path:
    """Compile the library into a directory unless it is there and newer than its sources.

    Returns the directory, for LD_LIBRARY_PATH. Safe while others build into it or load from it.

    Raises:
        BuildError: there is no compiler, or it failed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    library = directory / LIBRARY
    if extra_flags or not _is_fresh(library):
        _compile(library, extra_flags)
    return directory


def _is_fresh(library: Path) -> bool:
    if not library.exists():
        return False
    built_s = library.stat().st_mtime
    return all(source.stat().st_mtime < built_s for source in SOURCES.iterdir())


def _compile(library: Path, extra_flags: Sequence[str]) -> None:
    """Compile beside the library, then put it in place in one step: nobody loads half of it."""
    sources = sorted(map(str, SOURCES.glob("*.c")))
    with tempfile.TemporaryDirectory(dir=library.parent) as workshop:
        made = Path(workshop) / LIBRARY
        command = [_compiler(), *_FLAGS, *extra_flags, "-o", str(made), *sources, "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BuildError(f"{command[0]} cannot compile the stand-in in {SOURCES}:\n{done.stderr}")
        made.replace(library)


def _compiler() -> str:
    wanted = os.environ.get("CC", "cc")
    found = shutil.which(wanted)
    if found is None:
        raise BuildError(
            f"no C compiler {wanted!r} to build the stand-in NVML with: install one "
            "(Debian: apt install gcc), or name one in the environment variable CC"
        )
    return found
