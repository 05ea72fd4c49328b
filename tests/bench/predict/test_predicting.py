"""Small networks, what is measured of them, and the commands that predict."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest
from nvml_rack import make_rack, nvml_here

from bench.compare.energy import Meters
from bench.layers.timed import TimedLayer
from bench.naming import network_name
from bench.predict import measured_device, validate
from bench.predict.calibrating import file_jobs, measure_into, small_jobs
from bench.predict.choose_command import fit_texts
from bench.predict.engine_steps import assigned
from bench.predict.measured_device import Wanted, open_device
from bench.predict.measuring import Effort, measure, usual_s, without_interruptions
from bench.predict.metering import Metering, with_energy
from bench.predict.network_builder import NetworkBuilder, fill
from bench.predict.small_networks import small_network
from bench.undisturbed import NONE, Core
from optimizer.layers.choosing import Candidate, rank
from optimizer.layers.count import count_layers
from optimizer.layers.dataset import MeasuredNetwork, load_dataset
from optimizer.layers.fitting import fit_predictor
from optimizer.layers.fusion import Kind, fuse
from optimizer.layers.saved import SHIPPED, load_predictor
from optimizer.twin.profile import load_profile
from server.cli import main
from server.errors import ConfigError, EngineError

PROVENANCE: dict[str, object] = {"simulated": False, "cpu": "this", "engine": "onnxruntime", "threads": 1}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    net = NetworkBuilder(16, 14)
    x = net.convolution("input", 32, 3, act="Relu")
    x = net.pooling(net.convolution(x, 32, 3, groups=32, act="Clip"), "MaxPool", 3, 2)
    model = net.model(net.product(net.global_mean(x), 10))
    fill(model, 0)
    path = tmp_path_factory.mktemp("network") / "little.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("seed", range(34))
def test_every_family_makes_sound_networks_of_known_operators(seed: int) -> None:
    _, model = small_network(seed)
    steps = fuse(count_layers(model, 2))
    assert steps
    assert all(step.kind is not Kind.UNKNOWN for step in steps)
    assert small_network(seed)[1] == model


def test_interruptions_are_taken_from_long_steps_only() -> None:
    seconds = without_interruptions(np.array([1e-5, 6e-3, 3e-3]), 6.01e-3)
    assert seconds == pytest.approx([1e-5, 4e-3, 2e-3])
    untouched = np.array([1e-3, 2e-3])
    assert without_interruptions(untouched, 4e-3) is untouched


def test_a_rare_moment_does_not_make_a_step_short_nor_do_interruptions_make_it_long() -> None:
    usual, rare, interrupted = [20e-6] * 6, [8e-6], [90e-6] * 5
    assert usual_s([*rare, *usual, *interrupted]) == pytest.approx(20e-6)
    assert usual_s([1e-3, 1e-3, *[3e-3] * 8]) < 1.3e-3  # a long step, interrupted in most of its runs


def test_a_calibration_goes_on_where_it_stopped(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the engine that is measured")
    dataset = tmp_path / "d.jsonl"
    jobs = [job for job in small_jobs(10, 1) if job.network.startswith("perceptron")]
    effort = Effort(1, 1, 0.01)

    def quickly(name: str, path: Path, batch: int) -> MeasuredNetwork:
        return measure(name, path, batch, effort, Core(NONE))

    assert measure_into(dataset, jobs, PROVENANCE, quickly) == 0
    (one,) = load_dataset(dataset).measured
    assert (one.seconds > 0.0).all()
    assert one.run_s > 0.0
    assert one.watts is None
    assert measure_into(dataset, jobs, PROVENANCE, quickly) == 1
    assert len(load_dataset(dataset).measured) == 1
    assert measure_into(dataset, jobs, PROVENANCE, quickly, rounds=2) == 1
    (twice,) = load_dataset(dataset).measured
    assert twice.rounds == 2
    assert twice.table.names == one.table.names
    assert (twice.seconds > 0.0).all()
    with pytest.raises(ConfigError, match="another --dataset"):
        measure_into(dataset, jobs, {**PROVENANCE, "cpu": "other"}, quickly)


@dataclass(frozen=True)
class _Spent:
    power_w: float | None
    source: str = "made up"


class _Counter:
    """Answers with one power, or with nothing."""

    def __init__(self, power_w: float | None) -> None:
        self.power_w = power_w

    def span(self, seconds: float) -> _Spent:
        time.sleep(seconds)
        return _Spent(self.power_w)


def _metered(power_w: float | None) -> Metering:
    return Metering(_Counter(power_w), "onnxruntime", 0, idle_w=20.0, seconds=0.01)


def _timed(name: str, path: Path, batch: int) -> MeasuredNetwork:
    return measure(name, path, batch, Effort(1, 1, 0.01), Core(NONE))


def test_energy_is_power_while_batches_follow_each_other(network: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the engine that is measured")
    found = with_energy(_timed, _metered(50.0))("little", network, 2)
    assert found.energy_j == pytest.approx(50.0 * found.run_s)
    with pytest.raises(EngineError, match="--energy none"):
        with_energy(_timed, _metered(None))("little", network, 2)


def test_calibrating_a_simulated_counter_is_marked_and_gives_a_predictor_of_power(tmp_path: Path) -> None:
    """Times of this CPU beside the energy of a stand-in for NVML, as on a machine with a GPU."""
    pytest.importorskip("onnxruntime", reason="the engine that is measured")
    pytest.importorskip("scipy", reason="fitting")
    dataset = tmp_path / "d.jsonl"
    jobs = list(small_jobs(5, 1))
    with make_rack(tmp_path) as rack, nvml_here(rack):
        meters = Meters(0)
        meters.open()
        assert meters.gpu is not None
        metering = Metering(meters.gpu, "onnxruntime", 0, idle_w=20.0, seconds=0.05)
        measure_into(dataset, jobs, PROVENANCE, with_energy(_timed, metering))
        meters.close()
    found = load_dataset(dataset)
    assert all(one.energy_j is not None and one.energy_j > 0.0 for one in found.measured)
    predictor = fit_predictor(found)
    assert predictor.has_power
    predicted = predictor.predict(found.measured[0].table)
    assert predicted.watts is not None
    assert (predicted.watts > 0.0).all()


def test_a_gpu_with_a_counter_is_metered_and_idle_power_is_kept_apart(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="stands for an engine on a GPU")
    monkeypatch.setattr(measured_device, "runs_on_gpu", lambda _engine, _index: True)
    with (
        make_rack(tmp_path) as rack,
        nvml_here(rack),
        open_device(Wanted("onnxruntime", 0, 0.1), NONE) as device,
    ):
        found = device.measure("little", network, 1)
    said = device.provenance
    assert (said["simulated"], said["energy"], said["energy_s"]) == (True, "simulated", 0.1)
    assert said["device"].startswith("Stand-in")
    assert said["idle_w"] > 0.0
    assert found.energy_j is not None
    assert found.energy_j > 0.0


def test_without_a_counter_energy_is_not_measured_and_the_reason_is_said() -> None:
    pytest.importorskip("onnxruntime", reason="the engine that is measured")
    with open_device(Wanted("onnxruntime", energy_s=0.1)) as device:
        if device.notes:
            assert device.provenance["energy"] == "not measured"
            assert all("CPU" in note for note in device.notes)
        else:
            assert device.provenance["idle_w"] > 0.0
    with open_device(Wanted("onnxruntime", energy_s=None)) as device:
        assert device.provenance["energy"] == "not measured"
        assert device.notes == ()


def test_pieces_of_an_engine_go_to_their_heaviest_step(network: Path) -> None:
    steps = fuse(count_layers(onnx.load(network), 1))
    first, second = steps[0].name, steps[1].name
    timed = (TimedLayer(second, "fused", 2e-3, (first, second)), TimedLayer("copy", "copy", 1e-3, ()))
    seconds, layout_s = assigned(steps, timed)
    assert seconds.tolist()[:2] == [0.0, 2e-3]
    assert layout_s == 1e-3


@pytest.mark.parametrize("missing", ["sklearn", "scipy"])
def test_validating_without_its_packages_says_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(validate, "find_spec", lambda name: None if name == missing else name)
    with pytest.raises(SystemExit, match="2"):
        validate.main(["--training", "a.jsonl", "--held-out", "b.jsonl"])
    assert "pip install 'boulton[study]'" in capsys.readouterr().err


def test_validating_names_files_that_are_no_datasets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn", reason="it is asked for first")
    with pytest.raises(SystemExit, match="2"):
        validate.main(["--training", str(tmp_path / "a"), "--held-out", str(tmp_path / "b")])
    assert "is not a dataset of layers" in capsys.readouterr().err


def test_predict_says_that_figures_are_simulated(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "predict",
        str(network),
        "--gpu",
        "a100",
        "--batch",
        "1,8",
        "--clock",
        "700,1410",
        "--json",
        "-",
    ]
    assert main(command) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["simulated"] is True
    assert np.shape(said["energy_j"]) == np.shape(said["run_s"]) == (2, 2)
    slow, fast = said["run_s"][0]
    assert slow > fast > 0.0
    assert [layer["operators"] for layer in said["layers"]][:2] == ["Conv+Relu", "Conv+Clip"]
    assert any(layer["bottleneck"] for layer in said["layers"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--clock", "209,1410"], "210 to 1410 MHz: of 209 MHz it says nothing"),
        (["--clock", "5000"], "210 to 1410 MHz: of 5000 MHz it says nothing"),
        (
            ["--batch", "65536"],
            "batches of 65536 are too far .* at most 128: it says nothing of more than 1024",
        ),
    ],
)
def test_what_is_too_far_from_all_that_was_fitted_is_refused(
    flags: list[str], said: str, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(network), "--gpu", "a100", *flags]) == 2
    assert re.search(said, capsys.readouterr().err)


def test_batches_beyond_those_that_were_fitted_are_warned_of_and_doubted(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, figures = tmp_path / "page.html", tmp_path / "figures.json"
    flags = ["--batch", "128,512", "--html", str(page), "--json", str(figures), "--layers", "0"]
    assert main(["predict", str(network), "--gpu", "a100", *flags]) == 0
    warning = "beyond what was fitted (batches up to 128)"
    assert warning in capsys.readouterr().out
    assert warning in page.read_text(encoding="utf-8")
    said = json.loads(figures.read_text())
    assert said["batches_beyond_what_was_fitted"] == [512]
    (near,), (far,) = said["run_spread"]
    assert far > near + 0.2
    assert main(["predict", str(network), "--gpu", "a100", "--batch", "128"]) == 0
    assert "beyond" not in capsys.readouterr().out


def test_a_network_of_a_repository_is_called_as_its_entry(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = tmp_path / "tiny" / "1" / "model.onnx"
    entry.parent.mkdir(parents=True)
    shutil.copy(network, entry)
    assert main(["predict", str(entry), "--gpu", "a100", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["network"] == "tiny"
    assert [job.network for job in file_jobs([entry, network], [1])] == ["tiny", "little"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("repository/net/3/model.onnx", "net"),
        ("net/latest/model.onnx", "model"),
        ("net/3/other.onnx", "other"),
        ("model.onnx", "model"),
    ],
)
def test_names_of_networks(path: str, name: str) -> None:
    assert network_name(Path("/srv") / path) == name


def test_predict_draws_a_page(network: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    flags = ["--gpu", "a100", "--batch", "1,8", "--clock", "700,1410", "--html", str(page)]
    assert main(["predict", str(network), *flags]) == 0
    drawn = _Page()
    drawn.feed(page.read_text(encoding="utf-8"))
    assert drawn.open == []
    assert drawn.count["svg"] == 3
    assert drawn.count["tr"] == (1 + 4) + (1 + 5)
    assert "little: predicted (simulated)" in drawn.text
    assert "convolution" in drawn.text
    assert all(address.startswith("#") for address in drawn.addresses)


def test_a_page_without_energy_names_the_processor_and_leaves_watts_out(
    network: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    flags = ["--gpu", "amd-epyc", "--batch", "1,8", "--html", str(page)]
    assert main(["predict", str(network), *flags]) == 0
    text = page.read_text(encoding="utf-8")
    assert "AMD EPYC" in text
    assert "not predicted" in text
    assert '<th class="right">W</th>' not in text


def test_of_many_clocks_a_page_draws_some_and_says_so(network: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    clocks = ",".join(map(str, range(500, 1400, 50)))
    assert main(["predict", str(network), "--gpu", "a100", "--clock", clocks, "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "Drawn are 8 of the 18 clocks." in text
    assert text.count('<td class="right">500</td>') == 1
    assert text.count(" MHz</text>") == 2 * 8


class _Page(HTMLParser):
    """Elements that are open, how many of each there were, their text, and the addresses that they name."""

    _VOID = frozenset({"meta", "link", "br", "hr", "img", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: Counter[str] = Counter()
        self.text = ""
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] += 1
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_choose_ranks_and_excludes(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "accuracies.csv"
    table.write_text("network,accuracy\nlittle,0.7\n")
    command = ["choose", str(network), "--accuracies", str(table), "--gpu", "a100", "--json", "-"]
    assert main(command) == 0
    (only,) = json.loads(capsys.readouterr().out)["ranking"]
    assert only["pareto"] is True
    assert main([*command, "--slo-ms", "0.0001"]) == 0
    assert json.loads(capsys.readouterr().out)["ranking"][0]["excluded"] is True


@pytest.mark.parametrize(("lines", "has"), [("", "no lines at all"), ('"an\nother",0.5\n', "an\ufffdother")])
def test_choose_says_in_a_line_which_accuracies_there_are(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: str, has: str
) -> None:
    table = tmp_path / "accuracies.csv"
    table.write_text(f"network,accuracy\n{lines}")
    assert main(["choose", str(network), "--accuracies", str(table), "--gpu", "a100"]) == 2
    assert capsys.readouterr().err == f"boulton: --accuracies has no line for little; it has {has}\n"


def test_choose_says_which_gpu_fits_which_network(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, figures = tmp_path / "accuracies.csv", tmp_path / "figures.json"
    table.write_text("network,accuracy\nlittle,0.7\n")
    gpus = [word for name in ("t4", "v100", "a100", "h100", "h200") for word in ("--gpu", name)]
    command = ["choose", str(network), "--accuracies", str(table), *gpus, "--json", str(figures)]
    assert main(command) == 0
    (said,) = re.findall("^little: .*$", capsys.readouterr().out, re.MULTILINE)
    ranking = json.loads(figures.read_text())["ranking"]
    joules = {one["candidate"]["device"]: one["candidate"]["energy_per_image_j"] for one in ranking}
    best, second, *_ = sorted(joules, key=lambda name: joules[name])
    begin = f"little: cheapest on {best}; {second} costs {joules[second] / joules[best]:.2f} times"
    assert said.startswith(begin)
    assert all(name in said for name in joules)
    assert said.endswith("the energy (simulated)")
    assert json.loads(figures.read_text())["fits"] == [said]


def test_sentences_tell_what_is_too_slow() -> None:
    lean, fat = Candidate("a", "lean", 0.1, 1.0, 0.02), Candidate("a", "fat", 0.1, 2.0, 0.01)
    other = Candidate("a", "other", 0.1, 5.0, 0.011)
    (said,) = fit_texts(rank([lean, fat, other], 1.0, 0.015), slo=True)
    assert said == (
        "a: cheapest on fat within the SLO; other costs 2.50 times the energy; "
        "too slow: lean (20 ms, 0.50 times the energy)"
    )
    (said,) = fit_texts(rank([lean, fat], 1.0, 0.001), slo=True)
    assert said == "a: no GPU is within the SLO; the fastest, fat, takes 10 ms"
    assert fit_texts(rank([lean], 1.0), slo=False) == []


def test_choose_names_networks_of_a_repository_and_refuses_two_of_one_name(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "accuracies.csv"
    table.write_text("network,accuracy\none,0.7\ntwo,0.8\n")
    entries = [tmp_path / name / "1" / "model.onnx" for name in ("one", "two", "other/one")]
    for entry in entries:
        entry.parent.mkdir(parents=True)
        shutil.copy(network, entry)
    flags = ["--accuracies", str(table), "--gpu", "a100", "--json", "-"]
    assert main(["choose", *map(str, entries[:2]), *flags]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["candidate"]["network"] for one in said["ranking"]] == ["two", "one"]
    assert said["fits"] == []
    assert main(["choose", *map(str, entries), *flags]) == 2
    assert "are both called one" in capsys.readouterr().err


def test_choose_warns_of_batches_that_were_not_fitted_and_refuses_clocks(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "accuracies.csv"
    table.write_text("network,accuracy\nlittle,0.7\n")
    command = ["choose", str(network), "--accuracies", str(table), "--gpu", "a100", "--gpu", "t4"]
    assert main([*command, "--batch", "512"]) == 0
    assert "beyond what was fitted (batches up to 128)" in capsys.readouterr().out
    assert main([*command, "--clock", "1500"]) == 2
    assert "a100: this predictor was fitted at 210 to 1410 MHz" in capsys.readouterr().err


@pytest.mark.parametrize("gpu", ["a100", "h100", "h200", "t4", "v100"])
def test_shipped_predictors_of_gpus_are_marked_simulated_and_reach_over_the_clocks_of_their_card(
    gpu: str,
) -> None:
    predictor, legal = load_predictor(gpu), load_profile(gpu).sm_clocks_mhz
    assert predictor.simulated
    assert predictor.provenance["device"] == gpu
    assert (predictor.clocks_mhz[0], predictor.clocks_mhz[-1]) == (legal[0], legal[-1])
    assert predictor.has_power


@pytest.mark.parametrize("flags", [["--gpu", "nothing"], ["--predictor", "/nowhere.npz"]])
def test_predict_names_what_it_cannot_use(
    flags: list[str], network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(network), *flags]) == 2
    assert "no predictor" in capsys.readouterr().err


@pytest.fixture
def odd_network(tmp_path: Path) -> Path:
    """A network with names that a terminal or a browser could take for something else."""
    nodes = [
        onnx.helper.make_node("Relu", ["x"], ["a"], name="block[/red]<script>"),
        onnx.helper.make_node("Hardmax", ["a"], ["y"], name="two\nlines\x1b[31m"),
    ]
    shapes = [onnx.helper.make_tensor_value_info(name, 1, ["n", 3, 8, 8]) for name in ("x", "y")]
    graph = onnx.helper.make_graph(nodes, "odd", shapes[:1], shapes[1:])
    path = tmp_path / "odd[bold].onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), path)
    return path


def test_names_of_layers_are_shown_as_they_are(
    odd_network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert main(["predict", str(odd_network), "--gpu", "t4", "--html", str(page)]) == 0
    said = capsys.readouterr().out
    assert "odd[bold]: a batch" in said
    assert "block[/red]<script>" in said
    assert "two\N{REPLACEMENT CHARACTER}lines\N{REPLACEMENT CHARACTER}[31m" in said
    assert "<script>" not in page.read_text(encoding="utf-8")


def test_whatever_was_never_measured_is_named_wherever_a_figure_rests_on_it(
    odd_network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, table = tmp_path / "page.html", tmp_path / "accuracies.csv"
    table.write_text("network,accuracy\nodd[bold],0.7\n")
    said = "judged by work and traffic alone, never measured enough: Hardmax"
    assert main(["predict", str(odd_network), "--gpu", "t4", "--html", str(page)]) == 0
    assert said in capsys.readouterr().out
    assert said in page.read_text(encoding="utf-8")
    command = ["choose", str(odd_network), "--accuracies", str(table), "--gpu", "t4"]
    assert main(command) == 0
    assert f"odd[bold]: {said}" in capsys.readouterr().out
    assert main([*command, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == [f"odd[bold]: {said}"]


def test_predictors_of_one_name_are_told_apart(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "accuracies.csv"
    table.write_text("network,accuracy\nlittle,0.7\n")
    files = [str(tmp_path / folder / "card.npz") for folder in ("here", "there")]
    for shipped, path in zip(("t4", "a100"), map(Path, files), strict=True):
        path.parent.mkdir()
        shutil.copy(SHIPPED / f"{shipped}.npz", path)
    flags = [word for path in files for word in ("--gpu", path)]
    assert main(["choose", str(network), "--accuracies", str(table), *flags, "--json", "-"]) == 0
    ranking = json.loads(capsys.readouterr().out)["ranking"]
    assert {one["candidate"]["device"] for one in ranking} == set(files)


def test_a_network_that_computes_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = [
        onnx.helper.make_tensor_value_info(*one) for one in (("x", 1, ["n", 3, 8]), ("y", 1, ["n", 24]))
    ]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Flatten", ["x"], ["y"])], "view", shapes[:1], shapes[1:]
    )
    path = tmp_path / "view.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), path)
    assert main(["predict", str(path), "--gpu", "t4"]) == 2
    assert "computes nothing, so there is nothing to predict" in capsys.readouterr().err
