"""A prediction as one HTML page."""

from __future__ import annotations

from pathlib import Path

from bench.predict.asking import source_line
from bench.report.markup import figure, note, paragraph, table
from bench.report.page import Section, page
from bench.report.plot import Axis, Point, Series, plot
from optimizer.layers.network import NetworkPrediction
from optimizer.layers.predictor import LayerPredictor

_NONE = "not measured"


def write_page(path: Path, prediction: NetworkPrediction, predictor: LayerPredictor, name: str) -> None:
    """Write the page."""
    title = f"{name}: predicted{' (simulated)' if predictor.simulated else ''}"
    sections = [Section("Whole network", _whole(prediction)), Section("Layers", _layers(prediction))]
    path.write_text(page(title, sections, source_line(predictor)), encoding="utf-8")


def _whole(prediction: NetworkPrediction) -> tuple[str, ...]:
    drawings = [_against_batch(prediction, "milliseconds a batch", prediction.run_s * 1e3)]
    energy = prediction.energy_j
    if energy is None:
        return (*drawings, note("Power and energy were not measured, so they are not predicted."))
    per_image = (energy.T / prediction.batches).T
    drawings.append(_against_batch(prediction, "joules an image", per_image))
    return tuple(drawings)


def _against_batch(prediction: NetworkPrediction, title: str, values: object) -> str:
    import numpy as np

    array = np.asarray(values)
    series = [
        Series(
            f"{prediction.clocks_mhz[j]:.0f} MHz" if prediction.clocks_mhz else "this processor",
            tuple(Point(float(b), float(array[i, j])) for i, b in enumerate(prediction.batches)),
        )
        for j in range(array.shape[1])
    ]
    return figure(plot(title, Axis("batch", log=True), Axis(title, log=True), series), title)


def _layers(prediction: NetworkPrediction) -> tuple[str, ...]:
    seconds, marked = prediction.seconds[0, -1], prediction.bottlenecks(0, -1)
    watts = None if prediction.watts is None else prediction.watts[0, -1]
    points = tuple(
        Point(float(place + 1), float(value) * 1e3, tip=prediction.steps[place].name)
        for place, value in enumerate(seconds)
    )
    series = (
        Series("bottlenecks", tuple(p for i, p in enumerate(points) if i in marked), line=False),
        Series("others", tuple(p for i, p in enumerate(points) if i not in marked), line=False),
    )
    drawing = plot(
        "Layers", Axis("place in the network"), Axis("ms", log=True), [s for s in series if s.points]
    )
    rows = [
        (
            f"{'* ' if place in marked else ''}{step.name}",
            step.operators,
            step.kind.value,
            f"{seconds[place] * 1e3:.4f}",
            _NONE if watts is None else f"{watts[place]:.1f}",
        )
        for place, step in enumerate(prediction.steps)
    ]
    return (
        paragraph(f"At batch {prediction.batches[0]}; * marks those that together take half of the time."),
        figure(drawing, "Time of each layer"),
        table(("layer", "operators", "kind", "ms", "W"), rows, left=3),
    )
