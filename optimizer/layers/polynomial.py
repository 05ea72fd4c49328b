"""Sparse polynomials: all monomials up to a degree, of which Lasso keeps few.

Fitting needs scikit-learn (`pip install 'boulton[study]'`), predicting does not.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_FOLDS = 10
_ALPHAS = 60
_MOST_STEPS = 3000


@dataclass(frozen=True, slots=True)
class SparsePolynomial:
    """A weighted sum of monomials and of terms given beside them.

    Args:
        exponents: `[monomials, raw features]`.
        weights: of all terms, monomials first, of terms as they are (not standardised).
        constant: what is added.
    """

    exponents: Array
    weights: Array
    constant: float

    @property
    def terms(self) -> int:
        """How many terms Lasso kept."""
        return int(np.count_nonzero(self.weights))

    def predict(self, raw: Array, beside: Array) -> Array:
        """Return the value for each row of raw features and terms beside them."""
        answer: Array = _expanded(raw, beside, self.exponents) @ self.weights + self.constant
        return answer


def fit_polynomial(raw: Array, beside: Array, target: Array, degree: int) -> SparsePolynomial:
    """Choose terms by Lasso, its penalty at the least squared error of a 10-fold cross-validation.

    Args:
        raw: `[rows, features]`.
        beside: `[rows, terms]`, not multiplied with others.
        target: `[rows]`.
        degree: the highest of a monomial.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LassoCV

    exponents = _exponents(raw.shape[1], degree)
    terms = _expanded(raw, beside, exponents)
    means, scales = terms.mean(axis=0), terms.std(axis=0)
    scales = np.where(scales > 1e-12 * np.maximum(1.0, abs(means)), scales, np.inf)
    unit = target.std() or 1.0
    lasso = LassoCV(cv=min(_FOLDS, len(target)), alphas=_ALPHAS, max_iter=_MOST_STEPS, precompute=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # many terms are nearly the same
        lasso.fit((terms - means) / scales, target / unit)
    weights = lasso.coef_ / scales * unit
    return SparsePolynomial(exponents, weights, float(lasso.intercept_ * unit - means @ weights))


def _exponents(features: int, degree: int) -> Array:
    rows = [
        np.bincount(chosen, minlength=features)
        for total in range(1, degree + 1)
        for chosen in combinations_with_replacement(range(features), total)
    ]
    return np.array(rows, float)


def _expanded(raw: Array, beside: Array, exponents: Array) -> Array:
    monomials = np.ones((len(raw), len(exponents)))
    for feature in range(raw.shape[1]):
        for power in range(1, int(exponents[:, feature].max(initial=0.0)) + 1):
            monomials[:, exponents[:, feature] >= power] *= raw[:, feature, np.newaxis]
    return np.hstack([monomials, beside])
