"""Exporting PyTorch models: what comes out, and what is said when it cannot be done."""

from __future__ import annotations

import sys
import tomllib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from server.errors import ExportError
from server.export import Exported, export_model
from server.exporting.preprocessing import Preprocessing
from server.exporting.request import ExportRequest
from server.exporting.torch_source import load_model, load_state_dict
from server.models.repository import ImageInput, Repository

IMAGENET = Preprocessing(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LABELS = "a\nb\nc\nd\ne\n"

NETS = '''
import torch
from torch import nn

def small(channels=3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5),
    )

def grey():
    return small(1)

def five_channels():
    return small(5)

ready = small()

class Holder:
    def make():
        return small()

def needs_size(size):
    return small(size)

def raises():
    raise ValueError("no such dataset")

def returns_text():
    return "a model"

def exits():
    raise SystemExit(3)

number = 5

class Two(nn.Module):
    def forward(self, x):
        return {"mean": x.mean((2, 3)), "parts": [x.amax((1, 2, 3)), x * 2]}

class Branches(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x * 2
        return x

class Unsupported(nn.Module):
    def forward(self, x):
        return torch.linalg.eigvals(x).real

class FixedBatch(nn.Module):
    def forward(self, x):
        return x.reshape(2, -1)

class Selects(nn.Module):
    def forward(self, x):
        return x[x > 0]

class SliceByValue(nn.Module):
    def forward(self, x):
        return x[:, :, : int(x.abs().sum().item())]

class Mixes(nn.Module):
    """Every answer depends on the whole batch."""
    def forward(self, x):
        return (x - x.mean(0)).flatten(1)

class Noisy(nn.Module):
    def forward(self, x):
        return torch.nn.functional.dropout(x.flatten(1), 0.5, training=True)

class Text(nn.Module):
    def forward(self, x):
        return "tensor"

class Broken(nn.Module):
    def forward(self, x):
        return x.flatten(1) * float("nan")

class Complains(nn.Module):
    def forward(self, x):
        raise RuntimeError("first line\\nsecond line")

def half():
    return small().half()

class CastsByItself(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 2, dtype=torch.float16)
    def forward(self, x): return self.layer(x.half())

class AnswersInHalf(nn.Module):
    def forward(self, x): return x.bfloat16()

class Complex(nn.Module):
    def forward(self, x): return torch.fft.fft(x)

class LeavesAtOnce(nn.Module):
    def forward(self, x): raise SystemExit(5)

class LeavesLater(nn.Module):
    calls = 0
    def forward(self, x):
        self.calls += 1
        if self.calls > 1:
            raise SystemExit("enough")
        return x

class Counts(nn.Module):
    calls = 0
    def forward(self, x):
        self.calls += 1
        return x + self.calls

class InPlace(nn.Module):
    def forward(self, x): return x.add_(1.0)

class Unlucky(nn.Module):
    """Names of answers that are taken: the input's, and one another's."""
    def forward(self, x): return {"input": x + 1, "score": x + 2, "more": {"score": x + 3}}

class Wrapped(nn.Module):
    """Has itself what DataParallel puts before names."""
    def __init__(self):
        super().__init__()
        self.module = nn.Linear(16, 2)
    def forward(self, x): return self.module(x)

def parallel():
    return nn.DataParallel(small())

def compiled():
    return torch.compile(small())

def scripted():
    return torch.jit.script(nn.Linear(16, 2))

def on_meta():
    return nn.Linear(16, 2, device="meta")

def lazy():
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten())

class NamedLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = small()
        self.head = nn.Linear(7, 2)
    def forward(self, x):
        return self.head(self.body(x))
'''


class Silence:
    """Progress that nobody watches, remembered."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def step(self, text: str) -> AbstractContextManager[None]:
        self.steps.append(text)
        return nullcontext()


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("nets")
    (directory / "boulton_test_nets.py").write_text(NETS)
    (directory / "boulton_test_broken.py").write_text("import no_such_package_at_all")
    (directory / "boulton_test_syntax.py").write_text("def (")
    (directory / "boulton_test_clash.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    return directory


def export(nets: Path, root: Path, factory: str, **options: object) -> Exported:
    options.setdefault("input_shape", (3, 16, 16))
    model = factory if ":" in factory else f"boulton_test_nets:{factory}"
    return export_model(ExportRequest(model=model, repository=root, **options), Silence(), nets)


@pytest.fixture(scope="module")
def baked(nets: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Exported, Path]:
    """`small` exported for UINT8 pictures with ImageNet's preprocessing, labels and a batch limit."""
    root = tmp_path_factory.mktemp("baked") / "deep" / "models"
    labels = nets / "labels.txt"
    labels.write_text(LABELS)
    exported = export(
        nets, root, "small", uint8=True, preprocessing=IMAGENET, labels=labels, max_batch=8, resize=20
    )
    return exported, root


def run(path: Path, given: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: given})


def test_a_float_export_computes_what_pytorch_does_at_any_batch(nets: Path, tmp_path: Path) -> None:
    exported = export(nets, tmp_path, "small")
    module = load_model("boulton_test_nets:small", nets).eval()
    for batch in (1, 2, 7):
        given = np.random.default_rng(batch).standard_normal((batch, 3, 16, 16)).astype(np.float32)
        with torch.inference_mode():
            expected = module(torch.from_numpy(given)).numpy()
        np.testing.assert_allclose(run(exported.path, given)[0], expected, atol=1e-5)
    assert exported.inputs == ("input FP32 [batch, 3, 16, 16]",)
    assert exported.outputs == ("output FP32 [batch, 5]",)
    assert exported.preprocessing is None
    assert not exported.accepts_pictures
    assert Repository(tmp_path).entry("small").image is None


def test_a_uint8_export_takes_the_bytes_of_pictures(baked: tuple[Exported, Path], nets: Path) -> None:
    exported, _ = baked
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    normalised = (pixels / 255 - np.array(IMAGENET.mean)) / np.array(IMAGENET.std)
    module = load_model("boulton_test_nets:small", nets).eval()
    with torch.inference_mode():
        expected = module(torch.from_numpy(normalised.transpose(0, 3, 1, 2).astype(np.float32))).numpy()
    np.testing.assert_allclose(run(exported.path, pixels)[0], expected, atol=1e-5)
    assert exported.inputs == ("input UINT8 [batch, 16, 16, 3]",)


def test_the_entry_is_complete_and_readable(baked: tuple[Exported, Path]) -> None:
    exported, root = baked
    entry = Repository(root).entry("small")
    assert entry.version == exported.version == 1
    assert entry.labels == ("a", "b", "c", "d", "e")
    assert entry.max_batch == 8
    assert entry.image == ImageInput("input", height=16, width=16, resize=20)
    told = tomllib.loads((root / "small" / "config.toml").read_text())["export"]
    assert told["source"] == "boulton_test_nets:small"
    assert told["torch"] == torch.__version__
    assert (told["input"], told["precision"], told["opset"]) == ("uint8", "fp32", 20)
    assert told["preprocessing"] == "(pixel / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]"
    assert sorted(path.name for path in root.iterdir()) == ["small"]


def test_the_file_holds_its_weights_and_no_paths_of_this_machine(
    baked: tuple[Exported, Path], nets: Path
) -> None:
    exported, _ = baked
    assert [path.name for path in exported.path.parent.iterdir()] == ["model.onnx"]
    onnx.checker.check_model(str(exported.path), full_check=True)
    assert str(nets).encode() not in exported.path.read_bytes()
    assert b"site-packages" not in exported.path.read_bytes()


def test_parity_is_told_on_photographs(baked: tuple[Exported, Path]) -> None:
    exported, _ = baked
    parity = exported.parity
    assert exported.reference_name == "PyTorch"
    assert parity.photographs
    assert parity.samples >= 5
    assert parity.agreed == parity.samples
    assert 0 <= parity.largest_difference < 1e-4 < parity.largest_value
    assert f"top-1 agreement {parity.samples} of {parity.samples}" in str(parity)


def test_without_photographs_noise_is_called_noise(
    nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.exporting.samples.load_photographs", tuple)
    exported = export(nets, tmp_path, "small", uint8=True)
    assert not exported.parity.photographs
    assert "random noise" in str(exported.parity)
    assert "photographs" not in str(exported.parity)


def test_grey_pictures_are_compared_on_photographs_but_not_decoded(nets: Path, tmp_path: Path) -> None:
    exported = export(nets, tmp_path, "grey", uint8=True, input_shape=(1, 16, 16))
    assert exported.inputs == ("input UINT8 [batch, 16, 16, 1]",)
    assert exported.parity.photographs
    assert not exported.accepts_pictures
    assert Repository(tmp_path).entry("grey").image is None


def test_several_outputs_keep_their_names(nets: Path, tmp_path: Path) -> None:
    exported = export(nets, tmp_path, "Two")
    assert exported.outputs == (
        "mean FP32 [batch, 3]",
        "parts_0 FP32 [batch]",
        "parts_1 FP32 [batch, 3, 16, 16]",
    )


@pytest.mark.parametrize("factory", ["ready", "Holder.make"])
def test_a_ready_module_or_a_nested_name_will_do(nets: Path, factory: str) -> None:
    assert isinstance(load_model(f"boulton_test_nets:{factory}", nets), torch.nn.Module)


@pytest.mark.parametrize("factory", ["parallel", "compiled"])
def test_what_a_model_is_wrapped_in_is_taken_off(nets: Path, factory: str) -> None:
    assert type(load_model(f"boulton_test_nets:{factory}", nets)) is torch.nn.Sequential


def test_a_half_precision_model_is_exported_in_float32_and_that_is_said(nets: Path, tmp_path: Path) -> None:
    exported = export(nets, tmp_path, "half")
    assert exported.precision == "fp32"
    assert "the model was made in float16: it is exported in float32" in exported.notes


def test_weights_keep_their_digits_in_a_model_that_was_made_in_half(nets: Path, tmp_path: Path) -> None:
    state = load_model("boulton_test_nets:small", nets).state_dict()
    state["6.bias"] = torch.full((5,), 1000.03125)  # float16 has 0.5 between neighbours there
    state["6.weight"] = torch.zeros(5, 16)
    torch.save(state, tmp_path / "state.pt")
    exported = export(nets, tmp_path / "models", "half", state_dict=tmp_path / "state.pt")
    assert run(exported.path, np.zeros((1, 3, 16, 16), np.float32))[0].tolist() == [[1000.03125] * 5]


def test_answers_with_the_name_of_the_input_or_of_another_get_a_number(nets: Path, tmp_path: Path) -> None:
    exported = export(nets, tmp_path, "Unlucky")
    assert [text.split()[0] for text in exported.outputs] == ["input_2", "score", "score_2"]


def test_a_model_that_works_in_place_is_compared_on_what_it_was_given(nets: Path, tmp_path: Path) -> None:
    exported = export(nets, tmp_path, "InPlace")
    assert exported.parity.largest_difference == 0.0
    assert run(exported.path, np.zeros((1, 3, 16, 16), np.float32))[0].max() == 1.0


@pytest.mark.parametrize("prefixes", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_taken_off_and_a_models_own_are_not(
    nets: Path, tmp_path: Path, prefixes: str
) -> None:
    module = load_model("boulton_test_nets:Wrapped", nets)
    weights = {"module.weight": torch.ones(2, 16), "module.bias": torch.zeros(2)}
    torch.save({f"{prefixes}{key}": value for key, value in weights.items()}, tmp_path / "state.pt")
    load_state_dict(module, tmp_path / "state.pt")
    assert module(torch.ones(1, 16)).tolist() == [[16.0, 16.0]]


def test_layers_that_learn_their_size_from_the_first_picture_are_exported(nets: Path, tmp_path: Path) -> None:
    exported = export(nets, tmp_path, "lazy")
    (answer,) = run(exported.path, np.zeros((3, 3, 16, 16), np.float32))
    assert answer.shape == (3, 4 * 14 * 14)


def test_a_state_dict_gives_the_weights(nets: Path, tmp_path: Path) -> None:
    trained = load_model("boulton_test_nets:small", nets)
    with torch.no_grad():
        trained[6].bias.fill_(100.0)
    state = {f"module.{key}": value for key, value in trained.state_dict().items()}
    wrapped = {"epoch": 3, "state_dict": state}
    torch.save(wrapped, tmp_path / "trained.pt")
    exported = export(nets, tmp_path / "models", "small", state_dict=tmp_path / "trained.pt")
    assert run(exported.path, np.zeros((1, 3, 16, 16), np.float32))[0].min() > 90
    assert exported.notes == ()


def test_counters_of_training_may_be_missing(tmp_path: Path) -> None:
    module = torch.nn.BatchNorm1d(3)
    state = module.state_dict()
    del state["num_batches_tracked"]
    torch.save({**state, "weight": torch.full((3,), 7.0)}, tmp_path / "early.pt")
    load_state_dict(module, tmp_path / "early.pt")
    assert module.weight.tolist() == [7.0] * 3


def test_colours_for_terminals_stay_out_of_messages(nets: Path, tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(ExportError, match="holds more than tensors") as raised:
        export(nets, tmp_path / "models", "small", state_dict=tmp_path / "whole.pt")
    assert str(raised.value).isprintable()


def test_without_a_state_dict_it_is_said_whose_weights_these_are(baked: tuple[Exported, Path]) -> None:
    assert "no --state-dict" in " ".join(baked[0].notes)


def mismatched(key: str, value: torch.Tensor | None) -> dict[str, torch.Tensor]:
    state = {"6.weight": torch.zeros(5, 16), "6.bias": torch.zeros(5)}
    return {**state, key: value} if value is not None else {k: v for k, v in state.items() if k != key}


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must never be printed",)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (mismatched("6.bias", torch.zeros(9)), r"6.bias has shape \[9\] where the model has \[5\]"),
        (mismatched("6.bias", None), "6.bias is missing"),
        (mismatched("7.bias", torch.zeros(1)), "7.bias is not in the model"),
        (mismatched("6.bias", 3), "6.bias has shape int where"),
        (mismatched("6.bias", torch.zeros(5, dtype=torch.complex64)), "6.bias has complex numbers"),
        (mismatched("6.bias", torch.zeros(5, device="meta")), "cannot be loaded into the model: .*meta"),
        (mismatched("6.weight", torch.zeros(5, 16).to_sparse()), "cannot be loaded into the model: .*sparse"),
        ([1, 2], "holds a list, not a state dict"),
        (Evil(), "holds more than tensors, and for safety nothing else is loaded"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_explained(
    nets: Path, tmp_path: Path, content: object, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if isinstance(content, dict):
        whole = load_model("boulton_test_nets:small", nets).state_dict()
        content = {**{k: v for k, v in whole.items() if not k.startswith("6.")}, **content}
    torch.save(content, tmp_path / "state.pt")
    with pytest.raises(ExportError, match=complaint):
        export(nets, tmp_path / "models", "small", state_dict=tmp_path / "state.pt")
    assert "never" not in capsys.readouterr().out


def test_a_missing_or_damaged_state_dict_is_explained(nets: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"gone.pt cannot be read: No such file"):
        export(nets, tmp_path, "small", state_dict=tmp_path / "gone.pt")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(ExportError, match=r"junk.pt holds more than tensors"):
        export(nets, tmp_path, "small", state_dict=tmp_path / "junk.pt")


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ("no_such_module_here:make", "no module named 'no_such_module_here': looked in"),
        ("torchvision_missing_here:make", "install both from the same index"),
        ("boulton_test_nets.deeper:make", "no module named 'boulton_test_nets.deeper'"),
        ("boulton_test_broken:make", "needs 'no_such_package_at_all': .* pip install no_such_package_at_all"),
        ("boulton_test_syntax:make", "importing boulton_test_syntax failed: SyntaxError"),
        ("boulton_test_clash:make", "torchvision::nms.*install both from the same index"),
        ("missing", "boulton_test_nets has no 'missing'; it has AnswersInHalf, Branches, "),
        ("smal", "has no 'smal'; it has small$"),
        ("needs_size", r"raised TypeError: .*size.* called without arguments"),
        ("raises", r"raises\(\) raised ValueError: no such dataset"),
        ("exits", r"exits\(\) raised SystemExit: 3"),
        ("returns_text", "made a str, not a torch.nn.Module"),
        ("number", "is a int; it must be a function"),
        ("Branches", r"depends on the input's values at .*boulton_test_nets.py:\d+ `if x.sum"),
        ("Unsupported", "operator aten.linalg_eig has no ONNX counterpart"),
        ("FixedBatch", r"the output output FP32 \[2, .*\] does not begin with the batch"),
        ("Selects", r"does not begin with the batch|cannot be batched|depends on the input"),
        ("SliceByValue", "has a shape that depends on the input"),
        ("Mixes", "cannot be batched: an item's answer depends on its batch mates"),
        ("Noisy", "not deterministic: it answers the same items differently"),
        ("Counts", "not deterministic: it answers the same items differently"),
        ("LeavesAtOnce", "the model does not take .*: SystemExit: 5"),
        ("LeavesLater", "SystemExit: enough"),
        ("CastsByItself", r"exported in float32, so its code must not cast to float16 by itself"),
        ("AnswersInHalf", r"output output BF16 \[batch, 3, 16, 16\] cannot be served"),
        ("Complex", "answers with complex numbers"),
        ("scripted", "made a TorchScript module"),
        ("on_meta", "made a model on the device 'meta', which keeps no weights"),
        ("Broken", "answers with nothing but NaN and infinity"),
        ("Complains", "first line second line; --input-shape"),
        ("Text", "answers with a str; only tensors"),
        ("NamedLayer", r"layer head \(Linear\) .* does not take an input of shape \[2, 3, 16, 16\]"),
        ("five_channels", r"layer 0 \(Conv2d\) .*--input-shape C,H,W"),
    ],
)
def test_what_cannot_be_exported_is_explained_and_leaves_nothing(
    nets: Path, tmp_path: Path, model: str, complaint: str
) -> None:
    with pytest.raises(ExportError, match=complaint):
        export(nets, tmp_path / "models", model)
    assert list((tmp_path / "models").rglob("*")) == []


def test_uint8_is_refused_for_what_is_no_picture(nets: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"uint8 needs .* takes input FP32 \[batch, 5, 16, 16\]"):
        export(nets, tmp_path, "five_channels", uint8=True, input_shape=(5, 16, 16))


def test_a_mean_of_the_wrong_length_is_refused(nets: Path, tmp_path: Path) -> None:
    two = Preprocessing(1.0, (1.0, 2.0), (1.0,))
    with pytest.raises(ExportError, match="--mean has 2 values, but the network's input has 3 channels"):
        export(nets, tmp_path, "small", uint8=True, preprocessing=two)


def test_labels_must_be_as_many_as_classes(nets: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\n")
    with pytest.raises(ExportError, match=r"there are 2 labels, but output FP32 \[batch, 5\] has 5 classes"):
        export(nets, tmp_path / "models", "small", labels=tmp_path / "labels.txt")


def test_missing_torch_says_what_to_install(
    nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ExportError, match=r"pip install 'boulton\[torch\]'"):
        export(nets, tmp_path, "small")


def test_the_module_path_is_left_as_it_was(nets: Path) -> None:
    before = list(sys.path)
    load_model("boulton_test_nets:small", nets)
    assert sys.path == before
