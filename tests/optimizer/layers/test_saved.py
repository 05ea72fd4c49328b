"""Predictors on disk, whole and damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optimizer.layers.dataset import DatasetError
from optimizer.layers.saved import SHIPPED, load_predictor, shipped_predictors

Change = Callable[[dict[str, Any], dict[str, Any]], object]


def changed(path: Path, change: Change) -> Path:
    """Write a shipped predictor with changes to its arrays and to what it says."""
    with np.load(SHIPPED / "t4.npz") as file:
        arrays = dict(file)
    said = json.loads(str(arrays.pop("said")))
    change(arrays, said)
    np.savez_compressed(path, said=np.array(json.dumps(said)), **arrays)
    return path


def without_any(arrays: dict[str, Any], said: dict[str, Any]) -> None:
    del said["noise"]["any"], said["noise"]["power of any"]


def fewer_features(arrays: dict[str, Any], _: dict[str, Any]) -> None:
    arrays["convolution/points"] = arrays["convolution/points"][:, :2]


def no_numbers(arrays: dict[str, Any], _: dict[str, Any]) -> None:
    arrays["convolution/weights"] = np.full_like(arrays["convolution/weights"], np.nan)


def some_power(_: dict[str, Any], said: dict[str, Any]) -> None:
    del said["noise"]["power of pooling"]


@pytest.mark.parametrize("name", shipped_predictors())
def test_what_is_shipped_is_sound(name: str) -> None:
    assert load_predictor(name).processes


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda _, said: said.update(provenance=None), "it does not say its simulated, device"),
        (lambda _, said: said["provenance"].pop("device"), "it does not say its simulated, device"),
        (lambda _, said: said.update(clocks_mhz=[]), "the prices of any are not those of 1 clocks"),
        (lambda _, said: said["clocks_mhz"].reverse(), "its clocks are"),
        (lambda _, said: said.update(clocks_mhz=list("abcdef")), "its clocks are"),
        (lambda _, said: said.update(beside_s=[0.0]), "what runs take beyond their steps is"),
        (lambda _, said: said.update(beside_s=[float("nan")] * 3), "what runs take beyond their steps is"),
        (without_any, "it has nothing for kinds that were never measured"),
        (some_power, "it knows the power of some kinds only"),
        (fewer_features, "what was fitted to convolution does not fit together"),
        (no_numbers, "what was fitted to convolution does not fit together"),
        (lambda _, said: said.update(format="boulton-predictor-3"), "fitted by another version"),
    ],
)
def test_what_is_damaged_is_refused_in_a_line(change: Change, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as refused:
        load_predictor(changed(tmp_path / "damaged.npz", change))
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)
