"""Tables of accuracies as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.predict.accuracies import read_accuracies
from server.errors import ConfigError


def table(folder: Path, content: bytes) -> Path:
    path = folder / "accuracies.csv"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"network,accuracy\none,0.7\ntwo,0.85\n",
        b"\xef\xbb\xbfnetwork,accuracy\r\none,0.7\r\ntwo,0.85\r\n",
        b"network, accuracy\n\n one , 0.7\ntwo, 0.85\n",
        b"accuracy,paper,network\n70%,here,one\n85 %,there,two,more\n",
    ],
)
def test_what_spreadsheets_and_people_write_is_read(content: bytes, tmp_path: Path) -> None:
    assert read_accuracies(table(tmp_path, content)) == pytest.approx({"one": 0.7, "two": 0.85})


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "has no column network and no accuracy: it is empty"),
        (b"network;accuracy\none;0,7\n", "it has network;accuracy"),
        (b"network,accuracy\none,0.7\none,0.8\n", "has one twice"),
        (b"network,accuracy\none,70\n", "row 1: the accuracy of one is '70'; it must be a share"),
        (b"network,accuracy\none,0.5\ntwo\n", "row 2: the accuracy of two is ''"),
        (b"network,accuracy\none,nan\n", "is 'nan'"),
        (b"network,accuracy\none,-5%\n", "is '-5%'"),
        ("network,accuracy\none,0.7\n".encode("utf-16"), "cannot be read as CSV: 'utf-8'"),
        (b"network,accuracy\n" + b"n" * 200_000 + b",0.7\n", "cannot be read as CSV: field larger"),
        (b"network,accuracy\n" + b"one,0.7\n" * 200_000, "is no table: it is longer than"),
    ],
)
def test_what_is_no_table_is_refused_in_a_line(content: bytes, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        read_accuracies(table(tmp_path, content))
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)
