"""An analytic model in the manner of Paleo: arithmetic at the peak rate, traffic at the full bandwidth.

Qi, Sparks, Talwalkar, "Paleo: a performance model for deep neural networks", ICLR 2017: a layer reads its
inputs, computes and writes its answer, one after the other; a "platform percent of peak" scales all of it.
The rates are those that the best of the measured layers reached, the percentage is fitted; power is not
modelled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.layers.dataset import Rows
from optimizer.layers.features import FeatureTable

Array = NDArray[np.float64]

_BEST = 0.99
"""The quantile that counts as the best: single rows may owe their rate to the clock's tick."""


@dataclass(frozen=True, slots=True)
class Paleo:
    """What the platform can do.

    Args:
        operations_per_s: at best.
        bytes_per_s: at best.
        percent_of_peak: the share of both that layers get.
    """

    operations_per_s: float
    bytes_per_s: float
    percent_of_peak: float

    def seconds(self, table: FeatureTable) -> Array:
        """Return the time of each row."""
        return self._ideal_s(table) / self.percent_of_peak

    def watts(self, table: FeatureTable) -> Array | None:
        """Return None: power is not modelled."""
        del table
        return None

    def _ideal_s(self, table: FeatureTable) -> Array:
        answer: Array = table.column("operations") / self.operations_per_s + _bytes(table) / self.bytes_per_s
        return answer


def fit_paleo(rows: Rows) -> Paleo:
    """Take the rates from the rows, and the percentage that leaves the least relative error."""
    operations_per_s = float(np.quantile(rows.table.column("operations") / rows.seconds, _BEST))
    bytes_per_s = float(np.quantile(_bytes(rows.table) / rows.seconds, _BEST))
    at_peak = Paleo(operations_per_s, bytes_per_s, 1.0).seconds(rows.table) / rows.seconds
    # The p that minimises the sum of (ideal / p / measured - 1)^2.
    return Paleo(operations_per_s, bytes_per_s, float(at_peak @ at_peak / at_peak.sum()))


def _bytes(table: FeatureTable) -> Array:
    answer: Array = table.column("input_bytes") + table.column("weight_bytes") + table.column("output_bytes")
    return answer
