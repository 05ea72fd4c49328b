"""Networks of the zoo on their way into the repository, and what a person is told about their weights.

The small ones: exporting all of them takes many minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from exported_networks import Silence, once, shared_directory
from torch import nn

from optimizer.layers.count import count_layers_of_file
from optimizer.layers.layer import add_up
from server.commands import export
from server.errors import ExportError
from server.export import Exported, export_model
from server.exporting.builtin_models import BUILTIN_MODELS
from server.exporting.request import ExportRequest
from server.exporting.sessions import runner_of
from server.exporting.torch_export import to_onnx, torch_runner
from server.zoo import catalogue
from server.zoo.blocks import LocalResponseNorm
from server.zoo.nasnet import CellInputs, NormalCell, ReductionCell


@pytest.fixture(scope="module", params=["cifar10-6conv", "squeezenet", "mobilenetv2"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    name = request.param
    return once(
        shared_directory(tmp_path_factory),
        f"zoo-{name}",
        lambda root: export_model(ExportRequest(name, root), Silence()),
    )


def test_the_file_is_valid_and_takes_any_batch(exported: Exported) -> None:
    onnx.checker.check_model(str(exported.path), full_check=True)
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    builtin = BUILTIN_MODELS[exported.name]
    assert session.get_inputs()[0].shape == ["batch", *builtin.input_shape]
    images = np.random.default_rng(0).standard_normal((5, *builtin.input_shape)).astype(np.float32)
    (together,) = session.run(None, {"input": images})
    for count in (1, 2):
        (few,) = session.run(None, {"input": images[:count]})
        np.testing.assert_allclose(few, together[:count], rtol=1e-3, atol=1e-3)


def test_it_computes_what_pytorch_does(exported: Exported) -> None:
    assert exported.parity.photographs
    assert exported.parity.agreed == exported.parity.samples
    assert exported.parity.largest_difference < 1e-4 * exported.parity.largest_value


def test_random_weights_are_said_to_be_random(exported: Exported) -> None:
    assert any("the weights are random (seed 0): the answers mean nothing" in note for note in exported.notes)
    config = tomllib.loads((exported.path.parents[1] / "config.toml").read_text(encoding="utf-8"))
    assert config["export"]["weights"] == "random (seed 0)"
    assert config["export"]["network"] == BUILTIN_MODELS[exported.name].source
    assert exported.labels == 0
    assert not (exported.path.parents[1] / "labels.txt").exists()


def test_the_list_needs_no_model_and_says_which_weights_are_random(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(["--list"])
    assert stopped.value.code == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(BUILTIN_MODELS)
    assert len(lines) == 15
    assert ["random" not in line for line in lines] == [
        name == "efficientnet-lite0" for name in BUILTIN_MODELS
    ]
    (resnet,) = (line for line in lines if line.startswith("resnet50"))
    assert resnet.split()[1:5] == ["3x224x224", "25.56", "M", "7.72"]


def agree(network: nn.Module, shape: tuple[int, int, int]) -> onnx.ModelProto:
    """Export, run both on a few random pictures, compare, and return the graph."""
    torch.manual_seed(0)
    model = to_onnx(network.eval(), shape)
    images = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
    (got,), (meant,) = runner_of(model)((images,)), torch_runner(network)((images,))
    np.testing.assert_allclose(got, meant, rtol=1e-4, atol=1e-5)
    return model


def test_local_response_normalisation_is_one_operator_and_the_formula_of_the_paper() -> None:
    norm = LocalResponseNorm(k=2.0)
    model = agree(norm, (7, 3, 3))
    assert [node.op_type for node in model.graph.node] == ["LRN"]
    images = 30 * torch.randn(1, 7, 1, 1, generator=torch.Generator().manual_seed(0))
    values = images.flatten().tolist()
    neighbours = [values[max(0, i - 2) : i + 3] for i in range(7)]
    divisors = [(2 + 1e-4 * sum(a * a for a in near)) ** 0.75 for near in neighbours]
    expected = [value / divisor for value, divisor in zip(values, divisors, strict=True)]
    assert norm(images).flatten().tolist() == pytest.approx(expected, rel=1e-5)


class TwoInputs(nn.Module):
    """A cell of NASNet after a convolution, which makes its two inputs of one picture."""

    def __init__(self, cell: nn.Module, *, larger: bool) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 6, 3, 1, 1)
        self.here = nn.Conv2d(6, 8, 3, 2 if larger else 1, 1)
        self.cell = cell

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        before = self.before(images)
        return self.cell(self.here(before), before)


@pytest.mark.parametrize(
    ("kind", "larger", "side"), [(NormalCell, False, 8), (NormalCell, True, 9), (ReductionCell, True, 8)]
)
def test_cells_of_nasnet_export_with_inputs_of_one_size_or_two(kind: type, larger: bool, side: int) -> None:
    cell = kind(CellInputs(8, 6, 4, before_is_larger=larger), 4)
    model = agree(TwoInputs(cell, larger=larger), (3, side, side))
    here = (side + 1) // 2 if larger else side
    halved = here if kind is NormalCell else (here + 1) // 2
    shape = [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim[1:]]
    assert shape == [4 * kind.PARTS, halved, halved]


def test_the_graph_does_the_work_that_was_published(exported: Exported) -> None:
    """Two counts that know nothing of each other: of PyTorch's modules, and of the file's nodes."""
    totals = add_up(count_layers_of_file(exported.path, batch=2))
    builtin = BUILTIN_MODELS[exported.name]
    assert totals.multiply_adds == 2 * builtin.multiply_adds
    # A normalisation learns two numbers a channel; folded into the layer before it, one is left: the bias.
    network = catalogue.build(exported.name)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert totals.parameters == builtin.parameters - sum(norm.num_features for norm in norms)
    assert totals.unknown == ()


def test_without_pytorch_the_list_still_works_and_an_export_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "import sys, server.commands.export as e; e.model_list(); print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ExportError, match=r"pip install 'boulton\[torch\]'"):
        export_model(ExportRequest("resnet50", tmp_path), Silence())
    assert list(tmp_path.iterdir()) == []
