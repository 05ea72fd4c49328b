from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from optimizer.models.least_squares import ForgettingLeastSquares

BELIEFS = [((1.0, 0.0), 1.0), ((0.0, 1.0), 1.0)]


def taught() -> ForgettingLeastSquares:
    fit = ForgettingLeastSquares(2, 0.9)
    for x, y in (((1.0, 2.0), 8.0), ((1.0, 5.0), 17.0), ((1.0, 1.0), 5.0)):
        fit.forget()
        fit.observe(x, y)
    return fit


def theta(fit: ForgettingLeastSquares) -> list[float]:
    solved: list[float] = fit.solve(BELIEFS, 1e-9).tolist()
    return solved


def test_what_was_observed_survives_json() -> None:
    restored = ForgettingLeastSquares(2, 0.9)
    restored.import_state(json.loads(json.dumps(taught().export_state())))
    assert theta(restored) == theta(taught()) == pytest.approx([2.0, 3.0], rel=1e-3)


def test_what_was_exported_does_not_change_with_what_comes_after() -> None:
    fit = taught()
    state = json.dumps(exported := fit.export_state())
    fit.observe((1.0, 9.0), 1.0)
    fit.forget(0.5)
    assert json.dumps(exported) == state


def test_a_share_of_nothing_leaves_the_beliefs_alone() -> None:
    fit = taught()
    fit.forget(0.0)
    assert np.allclose(fit.solve(BELIEFS, 1.0), [1.0, 1.0])


GOOD = {"gram": [[1.0, 0.0], [0.0, 1.0]], "moment": [1.0, 1.0]}


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"gram": GOOD["gram"]},
        {**GOOD, "moment": [1.0, 1.0, 1.0]},
        {**GOOD, "gram": [[1.0]]},
        {**GOOD, "gram": [[1.0, 0.0], [0.0]]},
        {**GOOD, "gram": [[1.0, 0.0], [0.0, float("nan")]]},
        {**GOOD, "moment": [1.0, float("inf")]},
        {**GOOD, "moment": ["much", 1.0]},
        {**GOOD, "moment": None},
    ],
)
def test_anything_else_is_refused_and_changes_nothing(state: dict[str, Any]) -> None:
    fit = taught()
    with pytest.raises((ValueError, KeyError, TypeError)):
        fit.import_state(state)
    assert theta(fit) == theta(taught())
