"""Traffic as the command line writes it: `poisson:1000`, `trace:day.csv` and so on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from optimizer.settings_table import SettingsError
from optimizer.twin import arrivals as makers
from optimizer.twin.arrivals import Times
from server.errors import ConfigError

HELP = """\
arrivals, rates in images a second, times in seconds:
  poisson:RATE                                a constant rate
  trace:FILE.csv                              columns time_s,images: so many images at once at that time
  diurnal:MEAN,AMPLITUDE,PERIOD               a sine that starts at its lowest; AMPLITUDE is a share, 0 to 1
  mmpp:RATE1,RATE2,STAY1,STAY2                bursts: two rates, each for a random time of the given mean
  steps:SECONDS@RATE,SECONDS@RATE,...         one rate after the other; the last one stays
  flash:BASE,PEAK,AT,RISE,HOLD,FALL           a crowd that comes at AT, stays for HOLD and leaves
"""
DEFAULT_DURATION_S = 60.0
MOST_IMAGES = 20_000_000
MAX_DURATION_S = 7 * 86400.0
_MOST_PER_S = 1e6

_FORMS = "poisson:RATE, trace:FILE.csv, diurnal:..., mmpp:..., steps:... or flash:... (see --help)"


def read_arrivals(text: str, duration_s: float | None, seed: int) -> tuple[Times, float]:
    """Return the times of images and how long they arrive.

    Args:
        text: one of the forms in `HELP`.
        duration_s: what a trace holds beyond is left out; None: the trace's, or `DEFAULT_DURATION_S`.
        seed: of random traffic.

    Raises ConfigError when the text, or the file that it names, is not usable.
    """
    form, colon, rest = text.partition(":")
    if form == "trace" and rest:
        return _trace(text, Path(rest), duration_s)
    if form not in _MAKERS or not colon:
        raise ConfigError(f"--arrivals {text} is not understood; expected {_FORMS}")
    duration_s = duration_s or DEFAULT_DURATION_S
    times_s = _MAKERS[form](text, rest, duration_s, seed)
    if not times_s.size:
        raise ConfigError(f"--arrivals {text}: no image arrives within {duration_s:g} s")
    return times_s, duration_s


def _trace(text: str, path: Path, duration_s: float | None) -> tuple[Times, float]:
    try:
        times_s = makers.load_trace(path, most_images=MOST_IMAGES)
    except SettingsError as error:
        raise ConfigError(f"--arrivals {error}") from error
    duration_s = duration_s or max(float(times_s[-1]), 1.0)
    if duration_s > MAX_DURATION_S:
        raise ConfigError(
            f"--arrivals {text} lasts {duration_s:g} s, at most {MAX_DURATION_S:g} s are simulated; "
            f"give a --duration, or let its times start at 0"
        )
    within = times_s[times_s <= duration_s]
    if not within.size:
        raise ConfigError(f"--arrivals {text}: no image arrives within {duration_s:g} s")
    return within, duration_s


def _poisson(text: str, rest: str, duration_s: float, seed: int) -> Times:
    (rate,) = _numbers(text, rest.split(","), 1)
    _check_rates(text, duration_s, rate)
    return makers.poisson(rate, duration_s, seed=seed)


def _diurnal(text: str, rest: str, duration_s: float, seed: int) -> Times:
    mean, amplitude, period_s = _numbers(text, rest.split(","), 3)
    if amplitude > 1.0 or period_s == 0.0:
        _refuse(text, "an amplitude from 0 to 1 and a period above 0")
    _check_rates(text, duration_s, mean)
    return makers.diurnal(mean, amplitude, period_s, duration_s, seed=seed)


def _mmpp(text: str, rest: str, duration_s: float, seed: int) -> Times:
    low, high, low_s, high_s = _numbers(text, rest.split(","), 4)
    if min(low_s, high_s) < 1e-3:
        _refuse(text, "mean stays of at least 0.001 s")
    _check_rates(text, duration_s, low, high)
    return makers.mmpp((low, high), (low_s, high_s), duration_s, seed=seed)


def _steps(text: str, rest: str, duration_s: float, seed: int) -> Times:
    pairs = [part.partition("@") for part in rest.split(",")]
    numbers = _numbers(text, [part for first, _, second in pairs for part in (first, second)], 2 * len(pairs))
    parts = list(zip(numbers[::2], numbers[1::2], strict=True))
    _check_rates(text, duration_s, *numbers[1::2])
    return makers.steps(_fitted(parts, duration_s), seed=seed)


def _fitted(parts: Sequence[tuple[float, float]], duration_s: float) -> list[tuple[float, float]]:
    """Cut the steps at the end, or let the last one last until then."""
    fitted, left_s = [], duration_s
    for step_s, rate in parts:
        fitted.append((min(step_s, left_s), rate))
        left_s -= fitted[-1][0]
    return [*fitted, (left_s, parts[-1][1])]


def _flash(text: str, rest: str, duration_s: float, seed: int) -> Times:
    base, peak, at_s, rise_s, hold_s, fall_s = _numbers(text, rest.split(","), 6)
    _check_rates(text, duration_s, base, peak)
    return makers.flash_crowd(base, peak, at_s, rise_s, hold_s, fall_s, duration_s, seed=seed)


_MAKERS: dict[str, Callable[[str, str, float, int], Times]] = {
    "poisson": _poisson,
    "diurnal": _diurnal,
    "mmpp": _mmpp,
    "steps": _steps,
    "flash": _flash,
}


def _numbers(text: str, parts: Sequence[str], count: int) -> list[float]:
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(0.0 <= number < math.inf for number in numbers):
        _refuse(text, f"{count} number{'s' if count > 1 else ''}, none negative")
    return numbers


def _check_rates(text: str, duration_s: float, *rates: float) -> None:
    if max(rates) > _MOST_PER_S or max(rates) * duration_s > MOST_IMAGES:
        most = f"rates up to {_MOST_PER_S:,.0f} images a second and {MOST_IMAGES:,} images in all"
        _refuse(text, most)


def _refuse(text: str, allowed: str) -> NoReturn:
    raise ConfigError(f"--arrivals {text} is not allowed; expected {allowed} (see --help)")
