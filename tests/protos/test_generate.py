from __future__ import annotations

from pathlib import Path

from protos.generate import PROTOS, generate


def test_generating_anew_gives_what_is_committed(tmp_path: Path) -> None:
    (tmp_path / "protos").mkdir()
    assert generate(tmp_path) == 0
    fresh = {path.name: path.read_text() for path in (tmp_path / "protos").iterdir()}
    assert len(fresh) == 9
    for name, text in fresh.items():
        assert (PROTOS / name).read_text() == text, f"{name} is stale: run python protos/generate.py"
