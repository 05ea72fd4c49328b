from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from server.cli import find_commands

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("server", "optimizer", "bench", "protos")
ABOUT_THE_CHECKOUT = ("tests/test_packaging.py", "tests/protos/test_generate.py", "tests/deploy")
NOT_DATA = {".py", ".pyc", ".pyo"}

Run = Callable[..., str]

# In a process of its own: tritonclient and Boulton both bring the protocol's generated classes.
CLIENT = """
import json, sys
import numpy as np
import tritonclient.grpc as triton

tensor = triton.InferInput("x", [2, 3], "FP32")
tensor.set_data_from_numpy(np.arange(6, dtype=np.float32).reshape(2, 3))
with triton.InferenceServerClient(sys.argv[1]) as client:
    print(json.dumps(client.infer("increment", [tensor]).as_numpy("y").tolist()))
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model that adds one to three numbers."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "one"], ["y"])],
        "increment",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])],
    )
    version = tmp_path / "repository" / "increment" / "1"
    version.mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, version / "model.onnx")
    return tmp_path / "repository"


@pytest.fixture
def served(
    clean_python: Path, repository: Path, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The daemon of the clean environment on that repository, and its address."""
    ready = tmp_path / "ready.json"
    flags = ["--repository", repository, "--port", "0", "--metrics-port", "0", "--ready-file", ready]
    flags += ["--state-dir", tmp_path / "state"]
    daemon = subprocess.Popen(
        [str(word) for word in (clean_python.with_name("boulton"), "serve", *flags)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield daemon, f"127.0.0.1:{_wait_until_ready(daemon, ready)}"
    finally:
        daemon.kill()
        daemon.communicate()


def _wait_until_ready(daemon: subprocess.Popen[str], ready: Path) -> int:
    for _ in range(600):
        if ready.exists():
            return int(json.loads(ready.read_text(encoding="utf-8"))["grpc_port"])
        if daemon.poll() is not None:
            break
        time.sleep(0.1)
    daemon.kill()
    pytest.fail(f"the daemon did not become ready:\n{daemon.communicate()[0]}")


def test_every_data_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    data = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in NOT_DATA and "results" not in path.parts
    }
    assert {f"{package}/py.typed" for package in PACKAGES} <= data
    with zipfile.ZipFile(wheel) as archive:
        assert data - set(archive.namelist()) == set()


def test_nothing_but_the_packages_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        roots = {name.partition("/")[0] for name in archive.namelist()}
    assert {name for name in roots if not name.endswith(".dist-info")} == set(PACKAGES)


def test_the_licence_travels_with_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (licence,) = (name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE"))
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize("python", ["clean_python", "suite_python"])
def test_packages_come_from_the_wheel(
    python: str, request: pytest.FixtureRequest, shell: Run, tmp_path: Path
) -> None:
    interpreter = request.getfixturevalue(python)
    code = f"import {', '.join(PACKAGES)}; print(*({', '.join(f'{name}.__file__' for name in PACKAGES)}))"
    origins = [Path(word) for word in shell(interpreter, "-c", code, cwd=tmp_path).split()]
    (site_packages,) = (interpreter.parents[1] / "lib").glob("python*/site-packages")
    assert [origin.parents[1] for origin in origins] == [site_packages] * len(PACKAGES)


def test_the_command_says_its_version(clean_python: Path, wheel: Path, shell: Run, tmp_path: Path) -> None:
    said = shell(clean_python.with_name("boulton"), "--version", cwd=tmp_path)
    assert said.split() == ["boulton", wheel.name.split("-")[1]]


def test_help_lists_every_command(clean_python: Path, shell: Run, tmp_path: Path) -> None:
    said = shell(clean_python.with_name("boulton"), "--help", cwd=tmp_path)
    assert {"serve", "export", "infer", "load"} <= set(said.split())


@pytest.mark.parametrize("command", sorted(find_commands()))
def test_every_command_has_help_without_the_frameworks(
    command: str, clean_python: Path, shell: Run, tmp_path: Path
) -> None:
    assert "usage: boulton " + command in shell(
        clean_python.with_name("boulton"), command, "--help", cwd=tmp_path
    )


def test_serves_and_stops_cleanly(
    served: tuple[subprocess.Popen[str], str], shell: Run, tmp_path: Path
) -> None:
    daemon, url = served
    said = shell(sys.executable, "-c", CLIENT, url, cwd=tmp_path)
    assert json.loads(said) == [[1, 2, 3], [4, 5, 6]]
    daemon.terminate()
    assert daemon.wait(timeout=60) == 0


def test_the_suite_passes_against_the_wheel(suite_python: Path, shell: Run, tmp_path: Path) -> None:
    """Run the tests from a copy outside the checkout, where nothing but the wheel offers the packages."""
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    left_out = [f"--ignore={name}" for name in ABOUT_THE_CHECKOUT]
    options = ["-q", "-n", "2", "-p", "no:cacheprovider", *left_out]
    print(shell(suite_python, "-m", "pytest", *options, cwd=tmp_path, timeout_s=1500))
