"""Versions appear whole or not at all, and never change their siblings."""

from __future__ import annotations

import os
import tomllib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from server.errors import ExportError
from server.export import Exported, export_model
from server.exporting.request import ExportRequest
from server.exporting.writing import toml
from server.models.repository import Repository


class Silence:
    def step(self, text: str) -> AbstractContextManager[None]:
        return nullcontext()


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """An ONNX file with three classes: the mean of each colour."""
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["output"]),
        ],
        "pool",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", 3])],
    )
    path = tmp_path / "pool.onnx"
    onnx.save_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path
    )
    (tmp_path / "colours.txt").write_text("red\ngreen\nblue\n")
    return path


def export(pool: Path, **options: object) -> Exported:
    request = ExportRequest(model=str(pool), repository=pool.parent / "models", **options)
    return export_model(request, Silence())


def root(pool: Path) -> Path:
    return pool.parent / "models"


def test_the_next_free_version_is_taken(pool: Path) -> None:
    assert [export(pool).version for _ in range(3)] == [1, 2, 3]
    (root(pool) / "pool" / "7").mkdir()  # taken, if only by an empty directory
    assert export(pool).version == 8


def test_an_existing_version_is_not_overwritten_unless_forced(pool: Path) -> None:
    first = export(pool).path.read_bytes()
    with pytest.raises(ExportError, match=r"pool version 1 exists .* --force .* to write version 2"):
        export(pool, version=1, uint8=True)
    assert (root(pool) / "pool/1/model.onnx").read_bytes() == first
    forced = export(pool, version=1, uint8=True, force=True)
    assert forced.version == 1
    assert forced.path.read_bytes() != first
    assert Repository(root(pool)).index() == (("pool", (1,)),)


@pytest.mark.parametrize("version", [0, -1, 10**18])
def test_versions_are_positive(pool: Path, version: int) -> None:
    with pytest.raises(ExportError, match="--version must be a positive integer"):
        export(pool, version=version)


def test_directories_that_are_no_versions_do_not_count(pool: Path) -> None:
    for name in ("9" * 30, "007", "old"):
        (root(pool) / "pool" / name).mkdir(parents=True)
    assert export(pool).version == 1


def test_after_the_last_version_one_must_be_chosen(pool: Path) -> None:
    (root(pool) / "pool" / ("9" * 18)).mkdir(parents=True)
    with pytest.raises(ExportError, match="pool has no version left after 999999999999999999"):
        export(pool)


def test_settings_in_another_encoding_do_not_stop_an_export(pool: Path) -> None:
    by_hand = root(pool) / "pool" / "1"
    by_hand.mkdir(parents=True)
    (by_hand / "model.onnx").write_bytes(pool.read_bytes())
    (root(pool) / "pool" / "labels.txt").write_bytes(b"caf\xe9\n")
    assert export(pool, labels=pool.parent / "colours.txt").version == 2
    assert Repository(root(pool)).entry("pool", 2).labels == ("red", "green", "blue")
    assert (by_hand / "labels.txt").read_bytes() == b"caf\xe9\n"


def test_older_versions_keep_their_settings(pool: Path) -> None:
    colours = pool.parent / "colours.txt"
    export(pool, max_batch=4)
    export(pool, uint8=True, labels=colours, max_batch=8)
    export(pool)
    repository = Repository(root(pool))
    entries = [repository.entry("pool", version) for version in (1, 2, 3)]
    assert [entry.max_batch for entry in entries] == [4, 8, None]
    assert [entry.labels for entry in entries] == [(), ("red", "green", "blue"), ()]
    assert [entry.image is not None for entry in entries] == [False, True, False]


def test_versions_laid_down_by_hand_keep_having_no_settings(pool: Path) -> None:
    by_hand = root(pool) / "pool" / "1"
    by_hand.mkdir(parents=True)
    (by_hand / "model.onnx").write_bytes(pool.read_bytes())
    export(pool, uint8=True, max_batch=4, labels=pool.parent / "colours.txt")
    entry = Repository(root(pool)).entry("pool", 1)
    assert (entry.max_batch, entry.labels, entry.image) == (None, (), None)


def test_nothing_but_the_entry_is_left_behind(pool: Path) -> None:
    export(pool, labels=pool.parent / "colours.txt")
    found = sorted(str(path.relative_to(root(pool))) for path in root(pool).rglob("*"))
    assert found == ["pool", "pool/1", "pool/1/model.onnx", "pool/config.toml", "pool/labels.txt"]


def test_a_failure_while_placing_keeps_the_old_version(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = export(pool).path.read_bytes()
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.parent.name.startswith(".export-") and self.name == "1":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(ExportError, match="No space left on device"):
        export(pool, version=1, uint8=True, force=True)
    assert (root(pool) / "pool/1/model.onnx").read_bytes() == before
    assert Repository(root(pool)).entry("pool", 1).image is None  # its settings are still its own
    assert [path.name for path in root(pool).iterdir()] == ["pool"]


def test_a_repository_that_cannot_be_made_is_told(pool: Path) -> None:
    root(pool).write_text("a file")
    with pytest.raises(ExportError, match="models cannot be written"):
        export(pool)


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "a\0b"])
def test_names_that_lead_elsewhere_are_refused(pool: Path, name: str) -> None:
    with pytest.raises(ExportError, match=r"model name .* choose one with --name"):
        export(pool, name=name)
    assert not root(pool).exists()


def test_a_name_can_be_chosen(pool: Path) -> None:
    assert export(pool, name="my net", version=5).path == root(pool) / "my net" / "5" / "model.onnx"


@pytest.mark.parametrize("model", ["nothing", "a b:c", "x:", ":y", "resnet51", "module:1factory"])
def test_what_is_no_model_is_explained(pool: Path, model: str) -> None:
    request = ExportRequest(model=model, repository=root(pool))
    with pytest.raises(
        ExportError, match=r"built-in name \(efficientnet-lite0, .*\), module:factory .* ONNX file"
    ):
        export_model(request, Silence())


def test_label_files_that_cannot_be_read_are_told(pool: Path) -> None:
    with pytest.raises(ExportError, match=r"--labels .*gone.txt cannot be read"):
        export(pool, labels=pool.parent / "gone.txt")
    (pool.parent / "bad.txt").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ExportError, match=r"bad.txt is not UTF-8 text"):
        export(pool, labels=pool.parent / "bad.txt")
    (pool.parent / "empty.txt").write_text("\n")
    with pytest.raises(ExportError, match=r"empty.txt is empty"):
        export(pool, labels=pool.parent / "empty.txt")


@given(st.text(), st.integers(), st.floats(allow_nan=False, allow_infinity=False))
def test_what_is_written_as_toml_reads_back(text: str, whole: int, number: float) -> None:
    read = tomllib.loads(toml({"": {"a": text, "b": whole}, "t": {"c": number}, "empty": {}}))
    assert read == {"a": text.replace("\x7f", "?"), "b": whole, "t": {"c": number}}


def test_odd_file_names_do_not_break_the_config() -> None:
    odd = os.fsdecode(b"caf\xe9.onnx")
    assert tomllib.loads(toml({"export": {"source": odd}}))["export"]["source"] == "caf?.onnx"
