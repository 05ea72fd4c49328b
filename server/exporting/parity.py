"""Comparing what was written with what was meant, on photographs where there are any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from server.engines.engine import Array
from server.errors import ExportError
from server.exporting.candidate import Runner
from server.exporting.samples import Samples

# Of the largest value that the original answers with. Float32 graphs agree to about 1e-6 of it, half
# precision to about 1e-3; a wrong layout, weight or constant is off by far more.
_TOLERANCE = 1e-2


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the written file is from the original.

    Args:
        largest_difference: largest absolute difference of any output value.
        largest_value: largest absolute value that the original answered.
        agreed: items whose first class is the same; None when the network is no classifier.
        samples: items compared.
        photographs: whether they were real photographs.
        not_finite: the share of the original's answers that are NaN or infinite.
    """

    largest_difference: float
    largest_value: float
    agreed: int | None
    samples: int
    photographs: bool
    not_finite: float = 0.0

    def __str__(self) -> str:
        """Read as a person would say it."""
        what = "photographs" if self.photographs else "images of random noise"
        text = f"largest difference {self.largest_difference:.2g} (values up to {self.largest_value:.3g})"
        if self.agreed is not None:
            text += f", top-1 agreement {self.agreed} of {self.samples}"
        if self.not_finite:
            text += f", {self.not_finite:.2%} of the values NaN or infinite"
        return f"{text}, on {self.samples} {what}"


def compare(written: Runner, original: Runner, samples: Samples) -> Parity:
    """Run both on all samples.

    Raises:
        ExportError: the answers are of different shapes, infinite for one only, or too far apart; or there is
            no number among them, so that nothing is compared.
    """
    got, meant = written(samples.given), original(samples.original)
    if [a.shape for a in got] != [b.shape for b in meant]:
        raise ExportError(
            f"the ONNX graph answers with shapes {[a.shape for a in got]}, "
            f"the original with {[b.shape for b in meant]}"
        )
    if not any(np.isfinite(out).any() for out in meant):
        raise ExportError(
            "the network answers with nothing but NaN and infinity: its weights are damaged, or it overflows"
        )
    parity = Parity(
        largest_difference=largest_difference(got, meant),
        largest_value=max((_largest(out) for out in meant), default=0.0),
        agreed=_agreed(got, meant, samples.count),
        samples=samples.count,
        photographs=samples.photographs,
        not_finite=_not_finite(meant),
    )
    _check(parity)
    return parity


def check_batching(written: Runner, samples: Samples) -> None:
    """See that an item gets the same answer alone as in a batch: batch mates belong to different clients.

    Raises:
        ExportError: it does not.
    """
    together = written(samples.given)
    for row in (0, samples.count - 1):
        alone = written(tuple(np.ascontiguousarray(given[row : row + 1]) for given in samples.given))
        fault = _row_fault(alone, together, row, samples.count)
        if fault:
            raise ExportError(f"the network cannot be batched: {fault}")


def check_repeatable(run: Runner, inputs: tuple[Array, ...]) -> None:
    """See that the same items get the same answers when they come again.

    Raises:
        ExportError: they do not.
    """
    first, second = run(inputs), run(inputs)
    same_shapes = [one.shape for one in first] == [other.shape for other in second]
    largest = max((_largest(out) for out in first), default=0.0)
    if not same_shapes or not largest_difference(first, second) <= _TOLERANCE * largest:
        raise ExportError(
            "the network is not deterministic: it answers the same items differently when they come again "
            "(dropout left on, random numbers, or something that it counts?)"
        )


def check_shapes(answers: Sequence[Array], others: Sequence[Array]) -> None:
    """See that as many items always get answers of the same shapes.

    Raises:
        ExportError: they do not.
    """
    one, other = ([out.shape for out in outs] for outs in (answers, others))
    if one != other:
        raise ExportError(
            f"the answers' shape depends on the values of the input: {one} or {other}; only the batch may"
        )


def _row_fault(alone: Sequence[Array], together: Sequence[Array], row: int, count: int) -> str:
    for one, many in zip(alone, together, strict=True):
        if many.shape[:1] != (count,) or one.shape != (1, *many.shape[1:]):
            return (
                f"in batches of 1 and {count} an output has shapes {list(one.shape)} and {list(many.shape)}: "
                "its first dimension must be the batch and the others must not change"
            )
        largest = _largest(many)
        if not largest_difference((one,), (many[row : row + 1],)) <= _TOLERANCE * largest:
            return "an item's answer depends on its batch mates (batch normalisation or dropout left on?)"
    return ""


def largest_difference(got: Sequence[Array], meant: Sequence[Array]) -> float:
    """Return the largest absolute difference; infinite where only one of the two is finite."""
    worst = 0.0
    for one, other in zip(got, meant, strict=True):
        a, b = one.astype(np.float64), other.astype(np.float64)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        with np.errstate(invalid="ignore"):
            apart = np.where(same, 0.0, np.abs(a - b))
        worst = max(worst, float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0)))
    return worst


def _largest(values: Array) -> float:
    finite = np.abs(values.astype(np.float64))
    return float(finite[np.isfinite(finite)].max(initial=0.0))


def _not_finite(answers: Sequence[Array]) -> float:
    broken = sum(int((~np.isfinite(out)).sum()) for out in answers)
    return broken / max(sum(out.size for out in answers), 1)


def _agreed(got: Sequence[Array], meant: Sequence[Array], count: int) -> int | None:
    first = meant[0] if meant else np.empty(0)
    if first.ndim != 2 or first.shape[0] != count or first.shape[1] < 2:
        return None
    return int((got[0].argmax(axis=1) == first.argmax(axis=1)).sum())


def _check(parity: Parity) -> None:
    if not parity.largest_difference <= _TOLERANCE * max(parity.largest_value, 1e-6):
        raise ExportError(
            f"the ONNX graph does not compute what the original does: {parity}; "
            "an operator was converted wrongly, or the network is not deterministic (dropout in evaluation?)"
        )
