"""What arrives, as the models of queues need it."""

from __future__ import annotations

import math
from typing import NamedTuple

_LEAST_RATE_PER_S = 1e-3


class Load(NamedTuple):
    """Images a second to expect, and how unevenly: variance over mean of their counts (1 for Poisson).

    They come in requests of `request_images` in the mean; an image comes with `own_images`, itself included,
    which is more where requests differ, because large ones have more images. A batch that cannot take
    `largest_request` would split it.
    `shape` is that of the gaps between requests, 1 by chance and more for evener ones: see `evenness`.
    `dispersion` is that of counts over a batch. How much the rate itself changes from second to second says
    nothing of a queue that lasts milliseconds: for surges an alarm watches and capacity is held in reserve.
    """

    rate_per_s: float
    dispersion: float
    request_images: float = 1.0
    own_images: float = 1.0
    largest_request: float = 1.0
    shape: float = 1.0

    def positive(self) -> Load:
        """Return the same with a rate to divide by: next to nothing, where nothing arrives."""
        if self.rate_per_s >= _LEAST_RATE_PER_S:
            return self
        return self._replace(rate_per_s=_LEAST_RATE_PER_S)


def squared_variation(shape: float) -> float:
    """Return variance over squared mean of gaps of a Weibull distribution: 1 for shape 1, less for more."""
    return math.gamma(1.0 + 2.0 / shape) / math.gamma(1.0 + 1.0 / shape) ** 2 - 1.0
