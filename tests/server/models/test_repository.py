"""The model repository: what is found, and everything on disk or in a name that must not lead astray."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from server.errors import InvalidArgument, NotFound, RepositoryError
from server.models.repository import ImageInput, Repository, check_model_name


def write_version(
    root: Path, name: str, version: str, shape: list[object], datatype: int = TensorProto.FLOAT
) -> Path:
    """A network that answers what it was asked."""
    path = root / name / version / "model.onnx"
    path.parent.mkdir(parents=True)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["input"], ["output"])],
        "echo",
        [helper.make_tensor_value_info("input", datatype, shape)],
        [helper.make_tensor_value_info("output", datatype, shape)],
    )
    onnx.save_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path
    )
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two models: `cat` with versions 1, 2 and 10, `dog` with version 3."""
    root = tmp_path / "models"
    for version in ("1", "2", "10"):
        write_version(root, "cat", version, ["batch", 3, 8, 8])
    write_version(root, "dog", "3", ["batch", 8, 6, 3], TensorProto.UINT8)
    return root


def config(root: Path, text: str, name: str = "dog") -> None:
    (root / name / "config.toml").write_text(text)


def test_models_are_listed_with_their_versions_in_numeric_order(root: Path) -> None:
    assert Repository(root).index() == (("cat", (1, 2, 10)), ("dog", (3,)))


def test_the_newest_version_is_the_default(root: Path) -> None:
    entry = Repository(root).entry("cat")
    assert (entry.name, entry.version) == ("cat", 10)
    assert entry.onnx_path == (root / "cat/10/model.onnx").resolve()
    assert (entry.labels, entry.max_batch, entry.image) == ((), None, None)


def test_an_older_version_can_be_asked_for(root: Path) -> None:
    assert Repository(root).entry("cat", 2).onnx_path.parent.name == "2"


@pytest.mark.parametrize("version", ["01", "-1", "1x", "+5", "0", " 7", "1.0", "1e3", "٣", "0x1", "9" * 19])
def test_directories_that_are_no_versions_are_ignored(root: Path, version: str) -> None:
    write_version(root, "dog", version, ["batch", 8, 6, 3])
    assert dict(Repository(root).index())["dog"] == (3,)
    assert Repository(root).entry("dog").version == 3


def test_incomplete_versions_and_other_clutter_are_ignored(root: Path) -> None:
    (root / "dog" / "4").mkdir()
    (root / "dog" / "5").write_text("a file where a version should be")
    (root / "dog" / "6" / "model.onnx").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "file").write_text("")
    write_version(root, ".export-abc", "1", [1])
    assert Repository(root).index() == (("cat", (1, 2, 10)), ("dog", (3,)))


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("bird", None, "Request for unknown model: 'bird' is not found"),
        ("bird", 1, "Request for unknown model: 'bird' is not found"),
        ("cat", 3, "Request for unknown model: 'cat' version 3 is not found"),
        ("cat", 0, "Request for unknown model: 'cat' version 0 is not found"),
        ("cat", -1, "Request for unknown model: 'cat' version -1 is not found"),
        ("cat", 2**70, f"Request for unknown model: 'cat' version {2**70} is not found"),
    ],
)
def test_what_is_not_there_is_not_found(root: Path, name: str, version: int | None, message: str) -> None:
    with pytest.raises(NotFound) as raised:
        Repository(root).entry(name, version)
    assert str(raised.value) == message


def test_nothing_is_cached(root: Path) -> None:
    repository = Repository(root)
    assert repository.entry("dog").version == 3
    write_version(root, "dog", "4", ["batch", 8, 6, 3])
    assert repository.entry("dog").version == 4


def test_a_missing_repository_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="boulton export"):
        Repository(tmp_path / "nowhere").index()


HOSTILE_NAMES = [
    "",
    ".",
    "..",
    "../models",
    "../../etc",
    "/etc",
    "/",
    "cat/10",
    "cat/",
    "cat\\10",
    "..\\..",
    "cat\0",
    "\0",
    "cat\n",
    "cat\r\nINFO forged",
    "\x1b[31mcat",
    "cat\x7f",
    "cat\u202egnp",
    "\u2028",
    ".hidden",
    ".export-abc",
    "\ud800",
    "a" * 256,
    "é" * 128,
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_cannot_lead_anywhere_else(root: Path, name: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        Repository(root).entry(name)
    assert str(raised.value).isascii()
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    "name", ["cat", "efficientnet-lite0", "a b", "modèle", "a" * 255, "é" * 127, "x..y", "~", "-"]
)
def test_plain_names_pass(name: str) -> None:
    assert check_model_name(name) == name


@given(st.text(max_size=300))
def test_whatever_passes_is_one_path_component(name: str) -> None:
    try:
        checked = check_model_name(name)
    except InvalidArgument:
        return
    path = Path("/repository") / checked
    assert path.parent == Path("/repository")
    assert os.path.normpath(path) == str(path)
    assert len(os.fsencode(checked)) <= 255


def test_a_model_that_is_a_link_out_of_the_repository_is_refused(root: Path, tmp_path: Path) -> None:
    outside = write_version(tmp_path / "outside", "secret", "1", [1]).parent.parent
    (root / "secret").symlink_to(outside)
    with pytest.raises(RepositoryError, match="leads out of the model repository"):
        Repository(root).entry("secret")
    assert "secret" not in dict(Repository(root).index())


def test_a_version_that_is_a_link_out_of_the_repository_is_refused(root: Path, tmp_path: Path) -> None:
    outside = write_version(tmp_path / "outside", "secret", "1", [1]).parent
    (root / "dog" / "9").symlink_to(outside)
    with pytest.raises(RepositoryError, match="leads out of the model repository"):
        Repository(root).entry("dog", 9)
    assert Repository(root).entry("dog").version == 3


@pytest.mark.parametrize("file", ["model.onnx", "config.toml", "labels.txt"])
def test_a_file_that_is_a_link_out_of_the_repository_is_refused(
    root: Path, tmp_path: Path, file: str
) -> None:
    outside = tmp_path / "secret"
    outside.write_text("max_batch_size = 1")
    path = root / "dog" / "3" / file if file == "model.onnx" else root / "dog" / file
    path.unlink(missing_ok=True)
    path.symlink_to(outside)
    with pytest.raises(RepositoryError, match=f"{file} leads out of the model repository"):
        Repository(root).entry("dog", 3)


def test_links_inside_the_repository_are_followed(root: Path) -> None:
    (root / "alias").symlink_to("cat")
    assert Repository(root).entry("alias").onnx_path == (root / "cat/10/model.onnx").resolve()


def test_the_repository_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert Repository(tmp_path / "link").entry("dog").version == 3


def test_links_in_a_circle_are_an_error_not_a_loop(root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with pytest.raises((RepositoryError, NotFound)):
        Repository(root).entry("a")
    assert Repository(root).index() == (("cat", (1, 2, 10)), ("dog", (3,)))


def test_a_network_that_the_server_s_user_cannot_read_is_no_fault_of_the_network(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)  # root may read anything
    with pytest.raises(RepositoryError, match=r"dog/3/model\.onnx cannot be read by the server's user"):
        Repository(root).entry("dog")


def test_a_pipe_in_place_of_a_file_is_refused_without_waiting_for_it(root: Path) -> None:
    os.mkfifo(root / "dog" / "labels.txt")
    with pytest.raises(RepositoryError, match="not a regular file"):
        Repository(root).entry("dog")


def test_config_and_labels_are_read(root: Path) -> None:
    config(root, 'max_batch_size = 16\n[image]\ninput = "input"\nresize = 7\n[export]\nprecision = "INT8"\n')
    (root / "dog" / "labels.txt").write_text("a b\r\n\nc\n\n", encoding="utf-8-sig")
    entry = Repository(root).entry("dog")
    assert entry.max_batch == 16
    assert entry.labels == ("a b", "", "c")
    assert entry.image == ImageInput("input", height=8, width=6, resize=7)
    assert entry.precision == "int8"
    assert Repository(root).entry("cat").precision is None


def test_the_shorter_side_is_scaled_to_the_crop_unless_told_otherwise(root: Path) -> None:
    config(root, '[image]\ninput = "input"\n')
    image = Repository(root).entry("dog").image
    assert image is not None
    assert image.resize == 6


def test_a_version_with_settings_of_its_own_keeps_them(root: Path) -> None:
    config(root, "max_batch_size = 16", "cat")
    (root / "cat" / "2" / "config.toml").write_text("max_batch_size = 4")
    (root / "cat" / "2" / "labels.txt").write_text("")
    (root / "cat" / "labels.txt").write_text("tabby\n")
    repository = Repository(root)
    assert (repository.entry("cat", 2).max_batch, repository.entry("cat", 2).labels) == (4, ())
    assert (repository.entry("cat").max_batch, repository.entry("cat").labels) == (16, ("tabby",))


def test_a_mark_that_editors_put_before_the_text_is_left_out(root: Path) -> None:
    config(root, "\ufeffmax_batch_size = 16", "cat")
    assert Repository(root).entry("cat").max_batch == 16


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("max_batch_size = ", "not valid TOML"),
        ("a = " + "[" * 100_000, "not valid TOML"),
        ("max_batch_size = " + "9" * 5_000, "not valid TOML"),
        ("max_batch = 4", "unknown key 'max_batch'; allowed are max_batch_size, image, export"),
        ("max_batch_size = 0", "integer from 1 to 2147483647, got 0"),
        ("max_batch_size = -1", "got -1"),
        ("max_batch_size = true", "got True"),
        ("max_batch_size = 1.5", "got 1.5"),
        ('max_batch_size = "8"', "got '8'"),
        ("max_batch_size = 99999999999", "got 99999999999"),
        ("image = 3", r"image must be a table \[image\], got 3"),
        ("[image]", "input must name the network's image input, got None"),
        ("[image]\ninput = 1", "got 1"),
        (
            '[image]\ninput = "input"\nresize = 0',
            r"\[image\]: resize must be an integer from 1 to 16384, got 0",
        ),
        ("[export]\nprecision = 16", "precision must be a word such as fp32, fp16 or int8, got 16"),
        ('[export]\nprecision = "a/b"', "precision must be a word such as"),
        ('[image]\ninput = "input"\nsize = 3', r"\[image\]: unknown key 'size'"),
        ('[image]\ninput = "other"', "needs 3/model.onnx to have that one input|needs dog/3/model.onnx"),
    ],
)
def test_a_wrong_config_says_what_is_wrong(root: Path, text: str, complaint: str) -> None:
    config(root, text)
    with pytest.raises(RepositoryError, match=complaint):
        Repository(root).entry("dog")


@pytest.mark.parametrize("file", ["config.toml", "labels.txt"])
def test_text_that_is_not_utf8_is_refused(root: Path, file: str) -> None:
    (root / "dog" / file).write_bytes(b"abc\xff\xfe")
    with pytest.raises(RepositoryError, match=f"dog/{file} is not UTF-8 text: .* at byte 3"):
        Repository(root).entry("dog")


def test_a_huge_config_is_not_read(root: Path) -> None:
    with (root / "dog" / "config.toml").open("wb") as file:
        file.truncate(1 << 33)  # sparse: takes no space, would take 8 GiB of memory
    with pytest.raises(RepositoryError, match="larger than 1048576 bytes"):
        Repository(root).entry("dog")


def test_pictures_need_a_uint8_input(root: Path) -> None:
    config(root, '[image]\ninput = "input"\n', "cat")
    with pytest.raises(RepositoryError, match=r"it has input FP32 \[batch, 3, 8, 8\].*--input uint8"):
        Repository(root).entry("cat")


def test_a_damaged_network_is_named_when_its_size_is_needed(root: Path) -> None:
    config(root, '[image]\ninput = "input"\n')
    (root / "dog" / "3" / "model.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(RepositoryError, match=r"dog/3/model\.onnx"):
        Repository(root).entry("dog")


def test_one_broken_model_does_not_hide_the_others(root: Path) -> None:
    config(root, "broken", "cat")
    repository = Repository(root)
    assert dict(repository.index()).keys() == {"cat", "dog"}
    with pytest.raises(RepositoryError):
        repository.entry("cat")
    assert repository.entry("dog").version == 3
