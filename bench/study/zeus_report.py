"""The report on batch size and power limit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from bench.report.plot import Axis, Point, Series, plot
from bench.study.sections import Drawing, Section, Table, Text, number, percent
from bench.study.surfaces import Against, Surface
from bench.study.zeus import Setting

_EPOCH = (
    "All figures are of one epoch. A larger batch may need more epochs to the same accuracy, which these"
    " traces do not tell: what a power limit saves holds as it is, what a batch size saves does where the"
    " number of epochs stays."
)


def sections_of(surfaces: Sequence[Surface], settings: Sequence[Setting], eta: float) -> tuple[Section, ...]:
    """Return the report. `settings` are those that the surfaces were made of, for the drawings."""
    drawn = [drawing for surface in surfaces for drawing in _drawings(surface, settings)]
    return (
        Section("What it saves", (Text(_EPOCH, warning=True), _savings(surfaces), _median(surfaces))),
        Section(f"Least cost, energy weighing {eta:g}", (_costs(surfaces),)),
        Section("What the batch size does", (_batches(surfaces),)),
        Section("The data", (_checks(surfaces),)),
        Section("Time against energy", tuple(drawn)),
    )


def _savings(surfaces: Sequence[Surface]) -> Table:
    rows = [
        (str(one.job), str(one.fastest), *_row(one.least_energy), *_row(one.limit_alone)) for one in surfaces
    ]
    headings = ("job", "fastest", "least energy", "saves", "slower by", "limit alone", "saves", "slower by")
    return Table("Least energy against the fastest setting", headings, rows, left=3)


def _median(surfaces: Sequence[Surface]) -> Text:
    both, alone = (median(values) for values in zip(*map(_saved, surfaces), strict=True))
    return Text(
        f"Over {len(surfaces)} jobs the best batch size and power limit save {both:.1%} of the energy of the"
        f" fastest setting (median), the power limit alone {alone:.1%}."
    )


def _saved(one: Surface) -> tuple[float, float]:
    return one.least_energy.energy_saved, one.limit_alone.energy_saved


def _costs(surfaces: Sequence[Surface]) -> Table:
    rows = [
        (
            *(str(one.job), str(one.least_cost.setting), percent(one.least_cost.cost_saved)),
            *(percent(one.least_cost.energy_saved), percent(one.least_cost.time_added)),
        )
        for one in surfaces
    ]
    headings = ("job", "setting", "cost saved", "energy saved", "slower by")
    return Table("Zeus' cost: energy, and time at the highest limit's power", headings, rows, left=2)


def _batches(surfaces: Sequence[Surface]) -> Table:
    rows = [
        (str(one.job), str(alone.setting), percent(alone.energy_saved), percent(-alone.time_added))
        for one in surfaces
        if (alone := one.batch_alone) is not None
    ]
    headings = ("job", "largest batch", "energy saved", "time saved")
    return Table("Largest batch against the smallest, at the highest limit", headings, rows, left=2)


def _checks(surfaces: Sequence[Surface]) -> Table:
    rows = [
        (str(one.job), str(one.settings), str(len(one.front)), "; ".join(map(str, one.over_limit)) or "none")
        for one in surfaces
    ]
    headings = ("job", "settings", "on the front of time and energy", "mean power above the limit")
    return Table("What was measured", headings, rows)


def _drawings(surface: Surface, settings: Sequence[Setting]) -> Iterator[Drawing]:
    """Every batch size a line over power limits."""
    own = sorted((one for one in settings if one.job == surface.job), key=lambda one: one.power_limit_w)
    series = [
        Series(
            f"batch {size}",
            tuple(
                Point(one.seconds, one.joules / 1e3, tip=f"{one}: {one.watts:.0f} W")
                for one in own
                if one.batch_size == size
            ),
        )
        for size in sorted({one.batch_size for one in own})
    ]
    across, up = Axis("seconds an epoch", log=True), Axis("kJ an epoch", log=True)
    best = surface.least_energy
    caption = (
        f"Least energy at {best.setting}: {number(best.setting.joules / 1e3)} kJ. A line joins power limits."
    )
    yield Drawing(plot(str(surface.job), across, up, series), caption)


def _row(one: Against) -> tuple[str, str, str]:
    return str(one.setting), percent(one.energy_saved), percent(one.time_added)
