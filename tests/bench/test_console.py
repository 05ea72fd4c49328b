"""Printing to somebody who no longer reads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import helper

from bench.output import write_text
from server.cli import EXIT_BROKEN_PIPE
from server.errors import ConfigError


@pytest.fixture
def network(tmp_path: Path) -> Path:
    shapes = [helper.make_tensor_value_info(name, 1, ["n", 3, 8, 8]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "little", shapes[:1], shapes[1:])
    path = tmp_path / "little.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def command(network: Path, figures: Path) -> list[str]:
    table = network.with_name("accuracies.csv")
    table.write_text("network,accuracy\nlittle,0.7\n")
    words = ["choose", network, "--accuracies", table, "--gpu", "t4", "--json", figures]
    return [sys.executable, "-m", "server.cli", *map(str, words)]


def test_results_are_written_and_the_pipe_is_called_broken_where_nobody_reads(
    network: Path, tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nobody:
        done = subprocess.run(
            command(network, tmp_path / "out.json"), stdout=nobody, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (EXIT_BROKEN_PIPE, b"")
    assert (tmp_path / "out.json").stat().st_size


def test_a_standard_output_that_was_closed_does_no_harm(network: Path, tmp_path: Path) -> None:
    words = command(network, tmp_path / "out.json")
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *words], stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "out.json").stat().st_size


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
def test_a_full_disk_is_told_in_a_line() -> None:
    with pytest.raises(ConfigError, match="--json /dev/full cannot be written: No space left"):
        write_text(Path("/dev/full"), "x" * 100_000, "--json")
