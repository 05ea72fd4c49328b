from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.train_energy.plan import Plan, Recipe, agree
from server.errors import ConfigError

RECIPE = Recipe(epochs=1, image_size=8, learning_rate=0.001, images=None, threads=None)


def test_every_cell_comes_once_before_any_comes_again() -> None:
    plan = Plan(("a", "b"), (16, 32), ("cpu",), 2, RECIPE)
    runs = list(plan.runs())
    assert len(runs) == len(set(runs)) == len(plan) == 8
    assert {seed for _, seed in runs[:4]} == {0}
    assert {cell for cell, _ in runs[:4]} == {cell for cell, _ in runs[4:]}


def test_a_folder_keeps_to_one_recipe(tmp_path: Path) -> None:
    agree(tmp_path, RECIPE, {"machine": "this"})
    agree(tmp_path, RECIPE, {"machine": "another"})
    with pytest.raises(ConfigError, match=r"epochs 1 \(now 2\): give another --output"):
        agree(tmp_path, replace(RECIPE, epochs=2), {})


def test_a_broken_settings_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="give another --output, or remove it"):
        agree(tmp_path, RECIPE, {})
