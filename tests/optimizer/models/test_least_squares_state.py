from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from optimizer.models.least_squares import ForgettingLeastSquares

BELIEFS = [
    ((1.0, 0.0, 0.0, 0.0), 1.0),
    ((0.0, 1.0, 0.0, 0.0), 1.0),
    ((0.0, 0.0, 1.0, 0.0), 1.0),
    ((0.0, 0.0, 0.0, 1.0), 1.0),
]


def taught() -> ForgettingLeastSquares:
    fit = ForgettingLeastSquares(0.9)
    for x, y in (((1.0, 2.0, 0.0, 0.0), 8.0), ((1.0, 5.0, 0.0, 0.0), 17.0), ((1.0, 1.0, 0.0, 0.0), 5.0)):
        fit.forget()
        fit.observe(x, y)
    return fit


def theta(fit: ForgettingLeastSquares) -> list[float]:
    return list(fit.solve(BELIEFS, 1e-9))


def test_what_was_observed_survives_json() -> None:
    restored = ForgettingLeastSquares(0.9)
    restored.import_state(json.loads(json.dumps(taught().export_state())))
    assert theta(restored) == theta(taught()) == pytest.approx([2.0, 3.0, 1.0, 1.0], rel=1e-3)


def test_what_was_exported_does_not_change_with_what_comes_after() -> None:
    fit = taught()
    state = json.dumps(exported := fit.export_state())
    fit.observe((1.0, 9.0, 0.0, 0.0), 1.0)
    fit.forget(0.5)
    assert json.dumps(exported) == state


def test_a_share_of_nothing_leaves_the_beliefs_alone() -> None:
    fit = taught()
    fit.forget(0.0)
    assert np.allclose(fit.solve(BELIEFS, 1.0), [1.0, 1.0, 1.0, 1.0])


@pytest.mark.parametrize("seed", range(5))
def test_it_solves_the_normal_equations(seed: int) -> None:
    draw = np.random.default_rng(seed)
    theta = draw.uniform(0.5, 2.0, 4)
    fit = ForgettingLeastSquares(0.9)
    rows, weights = draw.uniform(0.1, 1.0, (12, 4)), draw.uniform(0.2, 1.0, 12)
    measured = rows @ theta * draw.uniform(0.999, 1.001, 12)
    for x, y, weight in zip(rows.tolist(), measured.tolist(), weights.tolist(), strict=True):
        fit.observe(x, y, weight)
    belief = [1.0, 0.0, 0.0, 0.0]
    relative, root = rows / measured[:, None], np.sqrt(weights)
    whole = np.vstack([relative * root[:, None], belief])
    wanted, *_ = np.linalg.lstsq(whole, np.append(root, 1.1 * theta[0]))
    assert (wanted > 0.0).all()
    assert fit.solve([(belief, 1.1 * float(theta[0]))], 1.0) == pytest.approx(wanted.tolist(), rel=1e-6)


GOOD = {"gram": np.eye(4).tolist(), "moment": [1.0, 1.0, 1.0, 1.0]}


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"gram": GOOD["gram"]},
        {**GOOD, "moment": [1.0, 1.0, 1.0]},
        {**GOOD, "gram": [[1.0]]},
        {**GOOD, "gram": [*np.eye(4).tolist()[:3], [0.0]]},
        {**GOOD, "gram": [*np.eye(4).tolist()[:3], [0.0, 0.0, 0.0, float("nan")]]},
        {**GOOD, "moment": [1.0, 1.0, 1.0, float("inf")]},
        {**GOOD, "moment": ["much", 1.0]},
        {**GOOD, "moment": None},
    ],
)
def test_anything_else_is_refused_and_changes_nothing(state: dict[str, Any]) -> None:
    fit = taught()
    with pytest.raises((ValueError, KeyError, TypeError)):
        fit.import_state(state)
    assert theta(fit) == theta(taught())
