"""Our predictor: for each kind of step a regression in logarithms, with its doubt.

The time of a step is first that of a roofline: so much for the step, for each operation, for each byte. That
holds far away too: twice the work, twice the time. What a step takes over that, and its power, are products
of causes, so their logarithms are fitted: by a straight line, and around it a Gaussian process, which learns
e.g. how well windows, groups and half-filled blocks of channels suit the processor. Fused followers and
groups are among what it sees. Steps of kinds that were measured too rarely, and operators that nobody knows,
are judged by their arithmetic and traffic alone, and named.

Where clocks were set, every step was measured at the same few clocks; between them the logarithms go straight
against the logarithm of the clock. Beyond them nothing is known: a card has no such clocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.layers.costs import ANY, charged
from optimizer.layers.doubt import ASSUMED, RunDoubt
from optimizer.layers.features import FeatureTable
from optimizer.layers.fusion import Kind
from optimizer.layers.gaussian import GaussianProcess
from optimizer.layers.view import COLUMNS_OF, view

Array = NDArray[np.float64]

BESIDES = 3
"""How many things cost time beyond the steps."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """Rows as in the table, columns as the clocks asked for (one where there are none).

    Args:
        seconds: of each step.
        spread: standard deviation of the logarithm of `seconds`: 0.1 is about 10 %.
        watts: None where power was never measured.
        guessed: operators' kinds that were never measured enough: judged by work and traffic alone.
    """

    seconds: Array
    spread: Array
    watts: Array | None
    guessed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LayerPredictor:
    """A fitted predictor.

    Args:
        provenance: of the dataset that it was fitted to.
        clocks_mhz: at which steps were measured; () where no clock was set.
        rooflines: by kind, and `any`: seconds of a step, and per operation, byte that flows and byte of
            weights, and what else costs time in a kind, `[clocks, causes]`.
        processes: likewise; of the logarithm of the time over the roofline's at each clock.
        power_processes: likewise; of the logarithm of the power. Empty where power was not measured.
        beside_s: what a run takes beyond its steps: once, for each step, and for each byte that is turned
            from one layout to another.
        doubt: how far off whole runs are, given how far off their steps may be.
    """

    provenance: Mapping[str, Any]
    clocks_mhz: tuple[int, ...]
    rooflines: Mapping[str, Array]
    processes: Mapping[str, GaussianProcess]
    power_processes: Mapping[str, GaussianProcess]
    beside_s: Array
    doubt: RunDoubt = ASSUMED

    @property
    def has_power(self) -> bool:
        """Whether power was measured."""
        return bool(self.power_processes)

    @property
    def simulated(self) -> bool:
        """Whether it was fitted to a simulated device."""
        return bool(self.provenance["simulated"])

    def predict(self, table: FeatureTable, clocks_mhz: Sequence[float] = ()) -> Predicted:
        """Predict every row at every clock.

        Raises:
            ValueError: clocks are asked for and none was measured, or the other way round; or clocks beyond
                those that were measured.
        """
        self.check_clocks(clocks_mhz)
        distinct, place = _distinct(table)
        times, spread, powers, guessed = self._logs(distinct)
        if len(clocks_mhz):
            times, spread = self._at(times, clocks_mhz), self._at(spread, clocks_mhz)
            powers = self._at(powers, clocks_mhz) if self.has_power else powers
        watts = np.exp(powers)[place] if self.has_power else None
        return Predicted(np.exp(times)[place], spread[place], watts, guessed)

    def check_clocks(self, clocks_mhz: Sequence[float]) -> None:
        """Raise ValueError unless it can say something of these clocks; () where none was set."""
        if not self.clocks_mhz:
            if len(clocks_mhz):
                raise ValueError("this predictor was fitted where no clock could be set: name none")
            return
        least, most = self.clocks_mhz[0], self.clocks_mhz[-1]
        odd = [f"{clock:.0f}" for clock in clocks_mhz if not least <= clock <= most]
        if odd or not len(clocks_mhz):
            given = f"of {', '.join(odd)} MHz it says nothing" if odd else "name one of them"
            raise ValueError(f"this predictor was fitted at {least} to {most} MHz: {given}")

    @property
    def largest_batch(self) -> int | None:
        """The largest batch among the steps that it remembers of those it was fitted to; None without any."""
        found = [
            process.largest(COLUMNS_OF[name].index("batch"))
            for name, process in self.processes.items()
            if "batch" in COLUMNS_OF[name]
        ]
        logs = [log for log in found if log is not None]
        return round(math.exp(max(logs))) if logs else None

    def besides_s(self, table: FeatureTable) -> float:
        """Return what a run takes beyond its steps, given all steps of a network at one batch size."""
        return float(besides(table) @ self.beside_s)

    def _logs(self, table: FeatureTable) -> tuple[Array, Array, Array, tuple[str, ...]]:
        """Return times, their spread and powers at every measured clock, and the kinds that are guessed."""
        shape = len(table.kinds), max(1, len(self.clocks_mhz))
        times, spread, powers = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        guessed = []
        for kind in set(table.kinds):
            rows, known = table.of(kind), kind.value in self.processes
            guessed += [] if known else [kind.value]
            name, own = kind.value if known else ANY, table.rows(rows)
            seen = view(own, kind if known else None)
            means, spread[rows] = self.processes[name].predict(seen)
            times[rows] = means + np.log(charged(own, name, self.rooflines[name]))
            if self.has_power:
                powers[rows] = self.power_processes[name].expect(seen)
        return times, spread, powers, tuple(sorted(guessed))

    def _at(self, values: Array, clocks_mhz: Sequence[float]) -> Array:
        """Interpolate columns between clocks."""
        known, wanted = np.log(self.clocks_mhz), np.log(np.asarray(clocks_mhz, float))
        if len(known) == 1:
            return np.repeat(values, len(wanted), axis=1)
        left = np.clip(np.searchsorted(known, wanted) - 1, 0, len(known) - 2)
        part = (wanted - known[left]) / (known[left + 1] - known[left])
        answer: Array = values[:, left] * (1.0 - part) + values[:, left + 1] * part
        return answer


def besides(table: FeatureTable) -> Array:
    """Return what costs time beyond the steps, given all steps of a network at one batch size."""
    return np.array([1.0, len(table.kinds), table.column("turned_bytes").sum()])


def _distinct(table: FeatureTable) -> tuple[FeatureTable, NDArray[np.int64]]:
    """Return each different row once, and where each row's is: networks repeat their layers."""
    kinds = list(Kind)
    numbers = np.array([kinds.index(kind) for kind in table.kinds], float)
    keyed = np.column_stack([numbers, table.values])
    _, first, place = np.unique(keyed, axis=0, return_index=True, return_inverse=True)
    return table.rows(first), place.reshape(-1)
