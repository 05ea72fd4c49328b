from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from optimizer.energy_price import PriceSchedule, PriceStep
from optimizer.targets import Targets
from server.governing.keeping import (
    LearnedFile,
    TargetsFile,
    default_directory,
    parse_targets,
    read_json,
    targets_json,
    write_json,
)

TARIFF = PriceSchedule((PriceStep(0.0, 0.1), PriceStep(3600.0, 0.4)))
CHANGED = Targets(slo_p99_ms=7.0, energy_price_per_kwh=TARIFF, power_cap_w=200.0, form="zeus")


class FakeLearner:
    def __init__(self, known: Mapping[str, object] | None = None) -> None:
        self.known = dict(known or {})

    def export_state(self) -> Mapping[str, object]:
        return self.known

    def import_state(self, state: Mapping[str, object]) -> None:
        if "version" not in state:
            raise ValueError("no version")
        self.known = dict(state)

    def forget(self) -> None:
        self.known = {}


def targets_file(directory: Path, given: Targets | None = None, repository: str = "models") -> TargetsFile:
    return TargetsFile(directory, Path(repository), "net", given or Targets())


def learned_file(directory: Path) -> LearnedFile:
    return LearnedFile(directory, "GPU-1", "net", "FP32", "ours")


def test_targets_are_found_again(tmp_path: Path) -> None:
    assert targets_file(tmp_path).load() == Targets()
    targets_file(tmp_path).save(CHANGED)
    assert targets_file(tmp_path).load() == CHANGED
    assert [path.suffix for path in (tmp_path / "targets").iterdir()] == [".json"]


def test_another_repository_has_targets_of_its_own(tmp_path: Path) -> None:
    targets_file(tmp_path).save(CHANGED)
    assert targets_file(tmp_path, repository="others").load() == Targets()


def test_other_targets_at_the_start_make_the_change_history(tmp_path: Path) -> None:
    targets_file(tmp_path).save(CHANGED)
    edited = Targets(slo_p99_ms=33.0)
    assert targets_file(tmp_path, edited).load() == edited


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[1, 2]",
        b"{}",
        b'{"given": {}, "targets": {"slo_p99_ms": -1}}',
        b'{"given": {}, "targets": {"slo": 5}}',
        b'{"given": {}, "targets": {"slo_p99_ms": "fast"}}',
        b'{"given": {}, "targets": {"energy_price_per_kwh": [[1]]}}',
        b'{"given": {}, "targets": {"energy_price_per_kwh": []}}',
        b'{"given": 3, "targets": 4}',
        b'{"given": {}, "targets": {"zeus_eta": 1%s}}' % (b"0" * 400),
        b"[" * 100_000,
    ],
)
def test_a_broken_file_is_reported_and_ignored(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    kept = targets_file(tmp_path)
    kept.path.parent.mkdir(parents=True)
    kept.path.write_bytes(content)
    assert kept.load() == Targets()
    assert any(f"{kept.path} is ignored" in line for line in caplog.messages)


def test_what_cannot_be_written_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "targets").write_text("a file where a directory should be")
    reason = targets_file(tmp_path).save(CHANGED)
    assert reason in caplog.messages
    assert "cannot be written" in reason
    assert write_json(tmp_path / "x.json", {"not": {1, 2}})
    assert read_json(tmp_path / "x.json") is None


def test_an_unfinished_file_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    assert write_json(path, {"a": 1}) is None
    assert write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}


def test_targets_survive_json() -> None:
    for targets in (Targets(), CHANGED, replace(CHANGED, power_cap_w=None)):
        assert parse_targets(json.loads(json.dumps(targets_json(targets)))) == targets


def test_knowledge_is_found_again_and_forgotten(tmp_path: Path) -> None:
    learned_file(tmp_path).save(FakeLearner({"version": 1, "weights": [1.5, 2.5]}))
    learner = FakeLearner()
    learned_file(tmp_path).restore(learner)
    assert learner.known == {"version": 1, "weights": [1.5, 2.5]}
    learned_file(tmp_path).remove()
    learned_file(tmp_path).remove()
    newcomer = FakeLearner()
    learned_file(tmp_path).restore(newcomer)
    assert newcomer.known == {}


def test_knowledge_that_cannot_be_used_is_reported_and_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learned_file(tmp_path).save(FakeLearner({"weights": 3}))
    learner = FakeLearner({"version": 2})
    learned_file(tmp_path).restore(learner)
    assert learner.known == {"version": 2}
    assert any("is ignored: ValueError: no version" in line for line in caplog.messages)


def test_knowledge_that_cannot_be_used_is_not_written_over(tmp_path: Path) -> None:
    kept = learned_file(tmp_path)
    kept.save(FakeLearner({"weights": 3}))
    kept.restore(FakeLearner())
    kept.save(FakeLearner({"version": 2}))
    assert read_json(kept.path.with_name(f"{kept.path.name}.ignored")) == {"weights": 3}
    assert read_json(kept.path) == {"version": 2}


def test_names_cannot_leave_the_directory(tmp_path: Path) -> None:
    path = LearnedFile(tmp_path, "../..", "../net", "FP32", "..").path
    assert path.resolve().is_relative_to(tmp_path / "learned")
    assert (
        LearnedFile(tmp_path, "a/b", "n", "FP32", "p").path
        != LearnedFile(tmp_path, "a%2fb", "n", "FP32", "p").path
    )


def test_the_default_directory_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "boulton"
    monkeypatch.setenv("XDG_STATE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_directory() == tmp_path / ".local/state/boulton"


def test_a_user_without_a_home_has_a_directory_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # the machine does not know the user
    assert default_directory() == Path("/.local/state/boulton")


def test_finding_nothing_is_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert read_json(tmp_path / "absent.json") is None
    assert caplog.messages == []
