"""The power of steps where only whole networks could be metered: energy counters are far slower than steps.

Every network's energy is explained by its steps: so much for each second that anything runs, and for each
second, operation and byte of each kind of step. Many networks of few steps tell these apart. A network's own
mean power is not given to all of its steps, which would hide what each kind draws.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from optimizer.layers.dataset import Dataset, MeasuredNetwork
from optimizer.layers.fusion import Kind

Array = NDArray[np.float64]

_LEANING = 0.05


def step_watts(dataset: Dataset) -> Array | None:
    """Return the mean power of each row of `dataset.rows()`, at one clock; None where none was measured.

    Power that was measured for steps is taken as it is. Needs SciPy.
    """
    watts = dataset.rows().watts
    if watts is not None or any(one.energy_j is None for one in dataset.measured):
        return watts
    return _shared_out(dataset.measured)


def _shared_out(measured: tuple[MeasuredNetwork, ...]) -> Array:
    from scipy.optimize import nnls

    # what passes beyond the steps draws their mean power, as a prediction has it
    joules = np.array([(one.energy_j or 0.0) / one.run_s * one.seconds.sum() for one in measured])
    each = [_causes(one) for one in measured]
    causes = np.array([rows.sum(axis=0) for rows in each])
    sizes = np.maximum(causes.mean(axis=0), 1e-30)
    # a leaning towards one power for everything: what the networks do not tell apart is not made up
    leaning = _LEANING * math.sqrt(len(measured)) * np.eye(causes.shape[1])
    rows = np.vstack([causes / sizes * (joules.mean() / joules)[:, np.newaxis], leaning])
    wanted = np.concatenate([np.ones(len(measured)), leaning[0]])
    costs = nnls(rows, wanted)[0] / sizes * joules.mean()
    return np.concatenate([rows @ costs / one.seconds for rows, one in zip(each, measured, strict=True)])


def _causes(one: MeasuredNetwork) -> Array:
    """Return what costs energy in each step: its time, and by kind its time, operations and bytes.

    Operations of grouped convolutions count apart: they use few of a processor's units at once.
    """
    column = one.table.column
    moved = column("input_bytes") + column("output_bytes"), column("weight_bytes")
    work, grouped = column("operations"), column("groups") > 1
    amounts = (one.seconds, work * ~grouped, work * grouped, *moved)
    kinds = [one.table.of(kind) for kind in Kind]
    return np.column_stack([one.seconds, *(rows * amount for rows in kinds for amount in amounts)])
