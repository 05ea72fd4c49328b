"""A prediction as one HTML page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.output import write_text
from bench.predict.asking import beyond_text, guessed_text, source_line
from bench.report.markup import figure, note, paragraph, table
from bench.report.page import Section, page
from bench.report.plot import Axis, Point, Series, plot
from optimizer.layers.network import NetworkPrediction
from optimizer.layers.predictor import LayerPredictor

Array = NDArray[np.float64]

_MOST_CLOCKS, _MOST_MARKS, _MOST_ROWS = 8, 9, 100


def write_page(path: Path, prediction: NetworkPrediction, predictor: LayerPredictor, name: str) -> None:
    """Write the page."""
    title = f"{name}: predicted{' (simulated)' if predictor.simulated else ''}"
    device = str(predictor.provenance["device"])
    sections = [Section("Whole network", _whole(prediction, device)), Section("Layers", _layers(prediction))]
    write_text(path, page(title, sections, source_line(predictor)), "--html")


def _whole(prediction: NetworkPrediction, device: str) -> tuple[str, ...]:
    times = prediction.run_s * 1e3
    low, high = (times * np.exp(sign * prediction.spread) for sign in (-1.0, 1.0))
    drawings = [_against_batch(prediction, device, ("Time of a batch", "ms a batch"), times, low, high)]
    energy, rest = prediction.energy_j, _clocks_left_out(prediction)
    if prediction.beyond:
        drawings.append(note(beyond_text(prediction)))
    if prediction.guessed:
        drawings.append(note(guessed_text(prediction)))
    if energy is None:
        drawings.append(note("Power and energy were not measured, so they are not predicted."))
    else:
        per_image = (energy.T / prediction.batches).T
        drawings.append(_against_batch(prediction, device, ("Energy of an image", "J an image"), per_image))
    return (*drawings, *rest, _numbers(prediction))


def _clocks_left_out(prediction: NetworkPrediction) -> tuple[str, ...]:
    shown, asked = len(_drawn_clocks(prediction)), prediction.run_s.shape[1]
    return (paragraph(f"Drawn are {shown} of the {asked} clocks."),) if shown < asked else ()


def _drawn_clocks(prediction: NetworkPrediction) -> tuple[int, ...]:
    """Return the places of the clocks to draw: evenly spread, the lowest and the highest among them."""
    count = prediction.run_s.shape[1]
    return tuple(np.unique(np.linspace(0, count - 1, min(count, _MOST_CLOCKS)).round().astype(int)).tolist())


def _against_batch(
    prediction: NetworkPrediction,
    device: str,
    words: tuple[str, str],
    values: Array,
    low: Array | None = None,
    high: Array | None = None,
) -> str:
    """Draw `values` `[batches, clocks]`; `words` are the title and the unit."""

    def point(i: int, j: int) -> Point:
        least, most = (None if edge is None else float(edge[i, j]) for edge in (low, high))
        tip = f"batch {prediction.batches[i]}: {values[i, j]:.4g} {words[1]}"
        return Point(float(prediction.batches[i]), float(values[i, j]), least, most, tip)

    series = [
        Series(
            f"{prediction.clocks_mhz[j]:.0f} MHz" if prediction.clocks_mhz else device,
            tuple(point(i, j) for i in range(len(prediction.batches))),
        )
        for j in _drawn_clocks(prediction)
    ]
    marks = tuple(map(float, prediction.batches)) if len(prediction.batches) <= _MOST_MARKS else ()
    drawing = plot(words[0], Axis("batch", log=True, marks=marks), Axis(words[1], log=True), series)
    bars = "Bars: one standard deviation of the prediction." if low is not None else "At the predicted power."
    return figure(drawing, bars)


def _numbers(prediction: NetworkPrediction) -> str:
    energy, power = prediction.energy_j, prediction.power_w
    headings = ["batch", *(["SM clock MHz"] if prediction.clocks_mhz else []), "ms", "+-", "images/s"]
    headings += ["W", "J", "images/J"] if energy is not None else []
    rows = []
    for i, j in list(np.ndindex(prediction.run_s.shape))[:_MOST_ROWS]:
        batch, seconds = prediction.batches[i], float(prediction.run_s[i, j])
        row = [str(batch), *([f"{prediction.clocks_mhz[j]:.0f}"] if prediction.clocks_mhz else [])]
        row += [f"{seconds * 1e3:.3f}", f"{prediction.spread[i, j]:.0%}", f"{batch / seconds:.1f}"]
        if energy is not None and power is not None:
            row += [f"{power[i, j]:.1f}", f"{energy[i, j]:.4g}", f"{batch / energy[i, j]:.2f}"]
        rows.append(row)
    left_out = prediction.run_s.size - len(rows)
    return table(headings, rows, f"The first {len(rows)}; --json writes all" if left_out else "", left=0)


def _layers(prediction: NetworkPrediction) -> tuple[str, ...]:
    seconds, marked = prediction.seconds[0, -1], prediction.bottlenecks(0, -1)
    watts = None if prediction.watts is None else prediction.watts[0, -1]
    points = tuple(
        Point(
            float(place + 1), float(value) * 1e3, tip=f"{prediction.steps[place].name}: {value * 1e3:.4f} ms"
        )
        for place, value in enumerate(seconds)
    )
    series = (
        Series("bottlenecks", tuple(p for i, p in enumerate(points) if i in marked), line=False),
        Series("others", tuple(p for i, p in enumerate(points) if i not in marked), line=False),
    )
    drawing = plot(
        "Time of each layer",
        Axis("place in the network"),
        Axis("ms", log=True),
        [s for s in series if s.points],
    )
    rows = [
        (
            f"{'* ' if place in marked else ''}{step.name}",
            step.operators,
            step.kind.value,
            f"{seconds[place] * 1e3:.4f}",
            *([] if watts is None else [f"{watts[place]:.1f}"]),
        )
        for place, step in enumerate(prediction.steps)
    ]
    clock = f" and {prediction.clocks_mhz[-1]:.0f} MHz" if prediction.clocks_mhz else ""
    headings = ("layer", "operators", "kind", "ms", *([] if watts is None else ["W"]))
    return (
        paragraph(
            f"At batch {prediction.batches[0]}{clock}; * marks those that together take half of the time."
        ),
        figure(drawing, "A layer's name is under the mouse."),
        table(headings, rows, left=3),
    )
