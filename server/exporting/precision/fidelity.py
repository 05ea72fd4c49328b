"""How true a network of lower precision is to its float32 original, on pictures that nothing was tuned to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.engines.engine import Array
from server.errors import ExportError
from server.exporting.candidate import Runner

_CHUNK = 8


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What lower precision did to the answers.

    Args:
        agreement: share of the items whose first class is the same as in float32; for a network that is no
            classifier, 1 less the mean absolute difference over the mean absolute value.
        classifier: which of the two `agreement` is.
        items: how many were compared.
        largest_difference: largest absolute difference of any output value.
        mean_difference: mean absolute difference of all output values.
        largest_value: largest absolute value that float32 answered.
    """

    agreement: float
    classifier: bool
    items: int
    largest_difference: float
    mean_difference: float
    largest_value: float

    def __str__(self) -> str:
        """Read as a person would say it."""
        what = "top-1 agreement" if self.classifier else "agreement (1 - mean difference / mean value)"
        count = f" ({round(self.agreement * self.items)} of {self.items})" if self.classifier else ""
        return (
            f"{what} {self.agreement:.3f}{count}, largest difference {self.largest_difference:.2g}, "
            f"mean {self.mean_difference:.2g} (values up to {self.largest_value:.3g})"
        )


def compare_precision(lower: Runner, original: Runner, inputs: tuple[Array, ...]) -> Fidelity:
    """Run both on all items, some at a time.

    Args:
        lower: the network in lower precision.
        original: the same in float32.
        inputs: one array per input, batch first.

    Raises:
        ExportError: the answers are of different shapes, or not all finite.
    """
    return fidelity_of(answers(lower, inputs), answers(original, inputs))


def fidelity_of(got: Sequence[Array], meant: Sequence[Array]) -> Fidelity:
    """Compare answers, one array an output; see `compare_precision`."""
    if [one.shape for one in got] != [other.shape for other in meant]:
        raise ExportError(
            f"lower precision answers with shapes {[one.shape for one in got]}, "
            f"float32 with {[other.shape for other in meant]}"
        )
    finite = all(
        np.isfinite(one).all() for one, other in zip(got, meant, strict=True) if np.isfinite(other).all()
    )
    if not finite:
        raise ExportError(
            "values outgrow the lower precision: it answers with infinities where float32 does not; "
            "keep float32"
        )
    apart = np.concatenate([np.abs(_wide(a) - _wide(b)).ravel() for a, b in zip(got, meant, strict=True)])
    values = np.concatenate([np.abs(_wide(other)).ravel() for other in meant])
    classifier = meant[0].ndim == 2 and meant[0].shape[1] > 1
    return Fidelity(
        agreement=_top1(got[0], meant[0]) if classifier else _closeness(apart, values),
        classifier=classifier,
        items=len(meant[0]),
        largest_difference=float(apart.max(initial=0.0)),
        mean_difference=float(apart.mean()),
        largest_value=float(values.max(initial=0.0)),
    )


def answers(run: Runner, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    """Run any number of items, a few at a time, so that large networks do not fill the memory."""
    parts = [
        run(tuple(np.ascontiguousarray(given[start : start + _CHUNK]) for given in inputs))
        for start in range(0, len(inputs[0]), _CHUNK)
    ]
    return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))


def _wide(values: Array) -> NDArray[np.float64]:
    return np.nan_to_num(values.astype(np.float64))


def _top1(got: Array, meant: Array) -> float:
    return float((got.argmax(axis=1) == meant.argmax(axis=1)).mean())


def _closeness(apart: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    scale = float(values.mean())
    return max(0.0, 1.0 - float(apart.mean()) / scale) if scale else float(not apart.any())
