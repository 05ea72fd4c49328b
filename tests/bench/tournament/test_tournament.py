"""Whole tournaments, tiny: one card, one network, two kinds of traffic, two policies, a few seconds."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_card import write_card
from matplotlib.image import imread

from bench.progress import CountingBar
from bench.tournament import command, ground
from bench.tournament.contest import Results, hold
from bench.tournament.plan import Cell, Plan, Settings
from bench.tournament.results import Failure, Ground, Played
from optimizer.settings_table import SettingsError
from server.errors import ConfigError

FLAGS = ("--model", "little", "--slo", "medium", "--max-batch", "32", "--duration", "24", "--workers", "2")
TRAFFIC = ("--traffic", "steady-low", "--traffic", "step-x10")
POLICIES = ("--policy", "boulton", "--policy", "default")


def parse(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(flags)


@dataclass(frozen=True)
class Finished:
    code: int
    folder: Path
    printed: str
    flags: tuple[str, ...]

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))
        return found

    @property
    def files(self) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in self.folder.rglob("cells/*/*.json")}


@pytest.fixture(scope="module")
def finished(card: str, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("tournament")
    flags = ("--gpu", card, *FLAGS, *TRAFFIC, *POLICIES, "--out", str(folder))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = command.run(parse(*flags))
    return Finished(code, folder, printed.getvalue(), flags)


def plan_of(*flags: str) -> Plan:
    return command.plan_from(parse(*flags))


def test_every_policy_plays_every_cell(finished: Finished) -> None:
    assert finished.code == 0
    assert len(finished.files) == 2 * (1 + 2)
    lines = finished.summary["lines"]
    played = {(line["cell"]["traffic"], line["policy"]) for line in lines}
    assert played == {(t, p) for t in ("steady-low", "step-x10") for p in ("boulton", "default")}


def test_everything_says_simulated_and_what_it_ran_on(finished: Finished) -> None:
    report = (finished.folder / "report.md").read_text(encoding="utf-8")
    titles = [line for line in report.splitlines() if line.startswith("#")]
    assert len(titles) >= 6
    assert [title for title in titles if "(simulated)" not in title] == []
    assert finished.summary["source"] == "simulated"
    for path in finished.files:
        assert json.loads(path.read_text(encoding="utf-8"))["source"] == "simulated"
    for text in (finished.printed, report):
        assert "numpy " in text
        assert "cores" in text


def test_the_table_has_the_figures_of_the_json(finished: Finished) -> None:
    standings = {one["policy"]: one for one in finished.summary["standings"]}
    rows = [line.split("│") for line in finished.printed.splitlines() if "│" in line]
    shown = {row[1].strip(): row[3].strip() for row in rows if row[1].strip() in standings}
    assert shown == {name: f"{one['ratio']:.3f}" for name, one in standings.items()}


def test_the_summary_has_the_fields_that_others_rely_on(finished: Finished) -> None:
    summary = finished.summary
    assert set(summary) >= {"command", "machine", "settings", "figures", "standings", "beaten", "questions"}
    assert {"name", "value", "target", "reached"} <= set(summary["figures"][0])
    for line in summary["lines"]:
        books = line["revenue"], line["default_revenue"], line["oracle_revenue"]
        assert all(isinstance(value, float) for value in books)
        assert line["ratio"] == pytest.approx(line["revenue"] / line["oracle_revenue"])
    assert {question["form"] for question in summary["questions"]} >= {"profit", "energy", "zeus"}
    assert [cap["gpu"] for cap in summary["caps"]] == ["slow card"]
    assert {one["traffic"] for one in summary["cap_by_traffic"]} == {"steady-low", "step-x10"}


def test_default_as_a_policy_earns_what_the_default_setting_does(finished: Finished) -> None:
    """The production loop and the fast path draw their noise in another order, and agree but for that."""
    lines = [line for line in finished.summary["lines"] if line["policy"] == "default"]
    assert [line["ratio"] for line in lines] == pytest.approx(
        [line["default_revenue"] / line["oracle_revenue"] for line in lines], rel=0.02
    )


def test_a_second_run_simulates_nothing(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    before = finished.files
    assert command.run(parse(*finished.flags)) == 0
    assert finished.files == before
    report = (finished.folder / "report.md").read_text(encoding="utf-8")
    assert "0 results were simulated" in report
    assert "reached (simulated)" in capsys.readouterr().out


def results_of(finished: Finished, fresh: Sequence[str] = ()) -> Results:
    return hold(plan_of(*finished.flags), finished.folder, 2, fresh=fresh)


def test_what_is_missing_or_cut_short_is_simulated_again(finished: Finished) -> None:
    gone, cut, *_ = (path for path in finished.files if path.stem == "default")
    ground = next(path for path in finished.files if path.stem == "ground")
    gone.unlink()
    cut.write_text(cut.read_text(encoding="utf-8")[:200], encoding="utf-8")
    assert results_of(finished).simulated == 2
    ground.unlink()
    assert results_of(finished).simulated == 1, "the same price, so what was played stays valid"


def test_a_policy_is_simulated_anew_when_asked(finished: Finished) -> None:
    before = finished.files
    assert results_of(finished, ["default"]).simulated == 2
    touched = {path.stem for path, time in finished.files.items() if before[path] != time}
    assert touched == {"default"}


def test_other_settings_are_other_results(finished: Finished, tmp_path: Path) -> None:
    plan = replace(plan_of(*finished.flags), policies=("default",))
    short = replace(plan, settings=replace(plan.settings, duration_s=4.0))
    assert hold(short, tmp_path, 2).simulated == 4
    assert hold(short, tmp_path, 2).simulated == 0
    longer = replace(plan, settings=replace(plan.settings, duration_s=5.0))
    assert hold(longer, tmp_path, 2).simulated == 4


def test_another_card_under_the_same_path_is_another_card(tmp_path: Path) -> None:
    cell = Cell(str(write_card(tmp_path)), "little", "bursty", "tight")
    settings = Settings(duration_s=4.0, max_batch=32)
    before = ground.fingerprint(cell, settings)
    assert ground.fingerprint(cell, settings) == before
    write_card(tmp_path, scale_w=1.01)
    ground.profile_of.cache_clear()
    assert ground.fingerprint(cell, settings) != before


def test_a_cell_that_fails_does_not_end_the_rest(card: str, tmp_path: Path) -> None:
    good, bad = Cell(card, "little", "steady-low", "tight"), Cell(card, "unknown", "steady-low", "tight")
    plan = Plan((bad, good), ("default", "no-such-policy"), Settings(duration_s=4.0, max_batch=32))
    results = hold(plan, tmp_path, 2)
    assert [(failure.cell, failure.policy) for failure in results.failures] == [
        (bad, ""),
        (good, "no-such-policy"),
    ]
    assert "unknown" in results.failures[0].error
    assert "no-such-policy" in results.failures[1].error
    assert [(run.cell, run.policy) for run in results.played] == [(good, "default")]


def test_an_interruption_ends_the_workers_and_keeps_what_was_finished(
    card: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    cells = tuple(Cell(card, "little", traffic, "tight") for traffic in ("steady-low", "bursty"))
    plan = Plan(cells, ("default",), Settings(duration_s=4.0, max_batch=32))
    with monkeypatch.context() as patch:
        patch.setattr(CountingBar, "done", interrupt)
        with pytest.raises(KeyboardInterrupt):
            hold(plan, tmp_path, 2)
    assert multiprocessing.active_children() == []
    assert hold(plan, tmp_path, 2).simulated in (2, 3), "at least the ground of one cell was kept"


def test_a_failure_is_told_and_counts(card: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--gpu", card, *FLAGS, "--model", "unknown", "--traffic", "steady-low", "--policy", "default")
    assert command.run(parse(*flags, "--duration", "4", "--out", str(tmp_path))) == 1
    assert "Could not be simulated" in capsys.readouterr().out


@pytest.mark.parametrize(("clocks", "largest"), [("[1000]", "8"), ("[400, 1000]", "1"), ("[1000]", "1")])
def test_a_card_of_a_single_clock_or_batch_is_drawn_too(clocks: str, largest: str, tmp_path: Path) -> None:
    card = write_card(tmp_path)
    text = card.read_text(encoding="utf-8")
    card.write_text(text.replace("[400, 600, 800, 1000]", clocks), encoding="utf-8")
    out = tmp_path / "out"
    flags = ("--gpu", str(card), "--model", "little", "--traffic", "steady-low", "--slo", "loose")
    more = ("--policy", "boulton", "--max-batch", largest, "--duration", "4", "--workers", "1")
    command.run(parse(*flags, *more, "--out", str(out)))
    assert len(list(out.glob("landscape-*.png"))) == 1


def test_plots_exist_and_are_not_blank(finished: Finished) -> None:
    plots = sorted(finished.folder.glob("*.png"))
    kinds = {path.name.partition("-")[0].removesuffix(".png") for path in plots}
    assert kinds == {"revenue", "energy", "late", "trajectory", "landscape"}
    assert len(plots) == 3 + 2 * 2
    report = (finished.folder / "report.md").read_text(encoding="utf-8")
    for path in plots:
        brightness = imread(path)[..., :3].sum(axis=-1)
        assert np.unique(brightness).size > 20
        assert path.name in report


def test_the_report_says_when_its_results_come_from_several_versions_of_the_code(
    card: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--gpu", card, *FLAGS, "--traffic", "bursty", "--policy", "default", "--out", str(tmp_path))
    assert command.run(parse(*flags, "--duration", "4")) == 0
    assert "versions of the code" not in capsys.readouterr().out
    (path,) = tmp_path.glob("cells/*/default.json")
    table = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**table, "code": "older"}), encoding="utf-8")
    assert command.run(parse(*flags, "--duration", "4")) == 0
    assert "2 versions of the code" in capsys.readouterr().out
    assert "2 versions of the code" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_ours_is_told_along_every_axis_and_forms_in_short(finished: Finished) -> None:
    places = {(one["axis"], one["place"]): one["cells"] for one in finished.summary["ours"]}
    assert places[("traffic", "steady-low")] == 1
    assert places[("SLO", "medium")] == places[("GPU", "card")] == places[("network", "little")] == 2
    profit = next(one for one in finished.summary["by_form"] if one["form"] == "profit")
    assert profit["lowest"] <= profit["gain"] <= profit["highest"]


def test_without_the_extra_there_is_all_but_plots(
    card: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    flags = ("--gpu", card, *FLAGS, "--traffic", "steady-low", "--policy", "default", "--out", str(tmp_path))
    assert command.run(parse(*flags, "--duration", "4")) == 0
    assert "boulton[tournament]" in capsys.readouterr().out
    assert list(tmp_path.glob("*.png")) == []
    assert (tmp_path / "report.md").exists()


def test_ours_is_tried_again_with_what_it_learned_on_steady_traffic_only(finished: Finished) -> None:
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in finished.files if path.stem == "boulton"]
    assert {run["cell"]["traffic"]: run["warm"] is not None for run in runs} == {
        "steady-low": True,
        "step-x10": False,
    }


def test_results_survive_json(finished: Finished) -> None:
    store_files = {path: json.loads(path.read_text(encoding="utf-8")) for path in finished.files}
    for path, table in store_files.items():
        table.pop("source")
        kind = Ground if path.stem == "ground" else Played
        result = kind.read(table)
        assert result.cell.slug == path.parent.name
        assert result.fingerprint == table["fingerprint"]


def test_defaults_are_all_shipped_cards_with_all_their_networks() -> None:
    plan = plan_of()
    assert len(plan.cells) == 5 * 4 * 6 * 3
    assert plan.policies[0] == "boulton"
    assert plan.settings == Settings(duration_s=command.DURATION_S)


def test_quick_fills_only_the_axes_that_are_not_given() -> None:
    assert {cell.gpu for cell in plan_of("--quick").cells} == set(command.QUICK_GPUS)
    plan = plan_of("--quick", "--gpu", "t4", "--duration", "7")
    assert {cell.gpu for cell in plan.cells} == {"t4"}
    assert plan.settings.duration_s == 7.0
    assert len(plan.cells) < len(plan_of("--gpu", "t4").cells)


def test_axes_do_not_repeat() -> None:
    plan = plan_of("--gpu", "t4", "--gpu", "t4", "--policy", "default", "--policy", "fixed")
    assert len(plan.cells) == 4 * 6 * 3
    assert plan.policies == ("default",)


def test_flags_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no-such-card"):
        plan_of("--gpu", "no-such-card")
    with pytest.raises(ConfigError, match="clipper"):
        plan_of("--policy", "default", "--fresh", "clipper")
    for flags in (["--traffic", "calm"], ["--slo", "none"], ["--duration", "0"], ["--workers", "0"]):
        with pytest.raises(SystemExit):
            parse(*flags)


def test_cards_of_one_name_in_two_folders_keep_apart() -> None:
    one, two = (Cell(f"/{folder}/card.toml", "little", "bursty", "tight") for folder in "ab")
    assert one.slug != two.slug
    assert str(one) == str(two) == "card little bursty tight"


def test_a_failure_names_its_cell() -> None:
    failure = Failure(Cell("v100", "vgg16", "bursty", "tight"), "clipper", "ValueError: no")
    assert str(failure.cell) == "v100 vgg16 bursty tight"
