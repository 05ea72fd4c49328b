"""The wheel, built once from a copy of the sources, and two environments that have it installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("server", "optimizer", "bench", "protos", "pyproject.toml", "README.md", "LICENSE")


def run(*command: str | Path, cwd: Path, timeout_s: float = 600.0) -> str:
    """Run a command and return what it printed; on failure the test shows all of it."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        timeout=timeout_s,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))} exited {done.returncode}:\n{done.stdout}"
    return done.stdout


def make_environment(directory: Path) -> Path:
    """Make a virtual environment without pip; return its interpreter."""
    run(sys.executable, "-m", "venv", "--without-pip", directory, cwd=directory.parent)
    return directory / "bin" / "python"


def install(python: Path, *arguments: str | Path) -> None:
    """Install into another environment with this environment's pip."""
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *arguments, cwd=python.parent)


@pytest.fixture
def shell() -> Callable[..., str]:
    """`run`, for the tests beside this file."""
    return run


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy: a build directory left in the checkout could lend the wheel files that are gone."""
    sources = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        original = ROOT / name
        if original.is_dir():
            shutil.copytree(original, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(original, sources)
    target = tmp_path_factory.mktemp("dist")
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        target,
        sources,
        cwd=sources,
    )
    (built,) = target.glob("boulton-*.whl")
    return built


@pytest.fixture(scope="session")
def clean_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel with its CPU extra and nothing else: what a user installs."""
    python = make_environment(tmp_path_factory.mktemp("clean") / "env")
    install(python, "--constraint", ROOT / "constraints.txt", f"{wheel}[cpu]")
    return python


@pytest.fixture(scope="session")
def suite_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in front and this environment's third-party packages behind it.

    A directory named in a .pth file is not searched for .pth files of its own: the editable installation
    of the checkout stays out of sight.
    """
    python = make_environment(tmp_path_factory.mktemp("suite") / "env")
    install(python, "--no-deps", "--no-index", wheel)
    (site_packages,) = (python.parents[1] / "lib").glob("python*/site-packages")
    (site_packages / "third_party.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python
