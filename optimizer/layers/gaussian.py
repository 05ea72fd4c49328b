"""Regression by a Gaussian process around a straight line, with the doubt that belongs to each answer.

Far from everything that was measured the answer returns to the line and the doubt grows. The formulas are
those of Rasmussen and Williams, "Gaussian processes for machine learning", 2006, chapters 2 and 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_ROWS_TO_TUNE = 250
_MOST_ROWS = 1000
_ROWS_TO_DOUBT = 192
"""Fewer points can only overstate a doubt; so few are inverted in milliseconds."""
_RIDGE = 1e-2
_SEED = 0
_FIRST_LENGTH, _LENGTHS = 4.0, (0.2, 200.0)
_FIRST_NOISE, _NOISES = 0.03, (1e-3, 3.0)
_STEPS = (4.0, 2.0, 2.0)
"""By which factors lengths and noise are changed, in rounds."""


@dataclass(frozen=True, slots=True)
class GaussianProcess:
    """A fitted process; several targets share one notion of what is near.

    Args:
        means: of the features, which are standardised with them and with `scales`.
        scales: see `means`.
        slopes: of the line `[1 + features, targets]`, its constants first.
        lengths: how far in each standardised feature is far.
        points: standardised rows that were seen.
        weights: of each of them `[points, targets]`.
        variances: of each target around its line.
        noise: as a share of the variance.
    """

    means: Array
    scales: Array
    slopes: Array
    lengths: Array
    points: Array
    weights: Array
    variances: Array
    noise: float

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Return means and standard deviations, `[rows, targets]` both; those of a new measurement."""
        unit = (features - self.means) / self.scales
        near = _covariance(unit, self.points, self.lengths)
        doubt = _swept(_with_noise(self.points[:_ROWS_TO_DOUBT], self.lengths, self.noise))
        some = near[:, : len(doubt)]
        known = np.einsum("ij,ij->i", _product(some, doubt), some)
        spread = np.maximum(1.0 - known, 0.0) + self.noise
        return self._means(unit, near), np.sqrt(np.outer(spread, self.variances))

    def expect(self, features: Array) -> Array:
        """Return the means alone, `[rows, targets]`: most of the work is in the doubts."""
        unit = (features - self.means) / self.scales
        return self._means(unit, _covariance(unit, self.points, self.lengths))

    def largest(self, feature: int) -> float | None:
        """Return the largest value of a feature, given by its place, among the points; None without any."""
        if not len(self.points):
            return None
        return float(self.points[:, feature].max() * self.scales[feature] + self.means[feature])

    def _means(self, unit: Array, near: Array) -> Array:
        answer: Array = self.slopes[0] + unit @ self.slopes[1:] + _product(near, self.weights)
        return answer


def fit_gaussian_process(features: Array, targets: Array) -> GaussianProcess:
    """Fit to `features` [rows, features] and `targets` [rows, targets].

    Lengths and noise are chosen for the first target on some of the rows; of very many rows, some drawn at
    random are kept.
    """
    means, scales = features.mean(axis=0), features.std(axis=0)
    scales = np.where(scales > 1e-9, scales, 1.0)
    unit = (features - means) / scales
    slopes = _line(unit, targets)
    rest = targets - slopes[0] - unit @ slopes[1:]
    variances = np.maximum(rest.var(axis=0), 1e-12)
    order = np.random.default_rng(_SEED).permutation(len(unit))
    some, kept = order[:_ROWS_TO_TUNE], order[:_MOST_ROWS]
    lengths, scale, noise = _tuned(unit[some], rest[some, 0] / math.sqrt(variances[0]))
    points = unit[kept].astype(np.float32).astype(float)  # as they are saved
    return GaussianProcess(
        means=means,
        scales=scales,
        slopes=slopes,
        lengths=lengths,
        points=points,
        weights=np.linalg.solve(_with_noise(points, lengths, noise), rest[kept]),
        variances=variances * scale,
        noise=noise,
    )


def constant_process(features: Array, targets: Array) -> GaussianProcess:
    """Return what answers 0 everywhere, and doubts it by how far the targets are off."""
    width, count = features.shape[1], targets.shape[1]
    return GaussianProcess(
        means=np.zeros(width),
        scales=np.ones(width),
        slopes=np.zeros((width + 1, count)),
        lengths=np.ones(width),
        points=np.empty((0, width)),
        weights=np.empty((0, count)),
        variances=np.maximum(np.mean(targets**2, axis=0), 1e-12),
        noise=0.0,
    )


def _with_noise(points: Array, lengths: Array, noise: float) -> Array:
    answer: Array = _covariance(points, points, lengths) + noise * np.eye(len(points))
    return answer


def _swept(matrix: Array) -> Array:
    """Invert a covariance in its place, in this thread (see `_product`), by Goodnight's sweep operator."""
    for place in range(len(matrix)):
        column, row = matrix[:, place].copy(), matrix[place] / matrix[place, place]
        matrix -= np.multiply.outer(column, row)
        matrix[place], matrix[:, place] = row, -column / column[place]
        matrix[place, place] = 1.0 / column[place]
    return matrix


def _line(unit: Array, targets: Array) -> Array:
    rows = np.column_stack([np.ones(len(unit)), unit])
    penalty = _RIDGE * len(unit) * np.eye(rows.shape[1])
    penalty[0, 0] = 0.0
    return np.asarray(np.linalg.solve(rows.T @ rows + penalty, rows.T @ targets), np.float64)


def _tuned(unit: Array, target: Array) -> tuple[Array, float, float]:
    """Return lengths, the variance and the noise over it, that foretell each row best from all others.

    One length or the noise is changed at a time, as long as that helps.
    """
    lengths, noise = np.full(unit.shape[1], _FIRST_LENGTH), _FIRST_NOISE
    best, scale = _left_out(unit, target, lengths, noise)
    for step in _STEPS:
        for place in range(-1, unit.shape[1]):
            for factor in (step, 1.0 / step):
                tried, tried_noise = lengths.copy(), noise
                if place < 0:
                    tried_noise = float(np.clip(noise * factor, *_NOISES))
                else:
                    tried[place] = np.clip(lengths[place] * factor, *_LENGTHS)
                score, tried_scale = _left_out(unit, target, tried, tried_noise)
                if score < best:
                    best, scale, lengths, noise = score, tried_scale, tried, tried_noise
                    break
    return lengths, scale, noise


def _left_out(unit: Array, target: Array, lengths: Array, noise: float) -> tuple[float, float]:
    """Return how badly rows that are left out are foretold, and the variance that fits the errors.

    The score is minus twice the mean log likelihood of each row given all others (Rasmussen and Williams,
    section 5.4.2).
    """
    inverse = np.linalg.inv(_with_noise(unit, lengths, noise))
    certain = np.diag(inverse)
    errors = inverse @ target / certain
    scale = float(np.mean(errors**2 * certain))
    return float(np.mean(-np.log(certain)) + math.log(max(scale, 1e-300))), scale


def _product(rows: Array, columns: Array) -> Array:
    """Multiply in this thread: BLAS would wake others, who cost more than they help where cores are busy."""
    return np.asarray(np.einsum("ij,jk->ik", rows, columns), np.float64)


def _covariance(rows: Array, others: Array, lengths: Array) -> Array:
    """Matern 5/2 of unit variance."""
    a, b = rows / lengths, others / lengths
    squares = np.sum(a**2, axis=1)[:, np.newaxis] + np.sum(b**2, axis=1) - 2.0 * _product(a, b.T)
    far = np.sqrt(5.0 * np.maximum(squares, 0.0))
    answer: Array = (1.0 + far + far**2 / 3.0) * np.exp(-far)
    return answer
