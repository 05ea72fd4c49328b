"""Findings as drawings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bench.report.plot import Axis, Point, Series, plot
from bench.study.findings import Findings
from bench.study.runs import Run, grouped, measure_of
from bench.study.sections import Drawing

_LEAST_ERROR = 1e-3


def correctness(runs: Sequence[Run]) -> Iterator[Drawing]:
    """Energy against errors, a drawing a device."""
    across = Axis(f"1 - F1 ({_LEAST_ERROR:g} stands for less)", log=True)
    for gpu, own in grouped(runs, lambda run: run.gpu).items():
        svg = _scatter(gpu, across, own, lambda run: max(_LEAST_ERROR, 1.0 - run.f1))
        yield Drawing(svg, f"Every training on {gpu}. To the left it errs less, below it costs less.")


def flops(runs: Sequence[Run]) -> Iterator[Drawing]:
    """Energy against FLOPs, a drawing a device."""
    known = [run for run in runs if run.gigaflops]
    for gpu, own in grouped(known, lambda run: run.gpu).items():
        svg = _scatter(gpu, Axis("GFLOPs an image, forward", log=True), own, lambda run: run.gigaflops or 0.0)
        yield Drawing(svg, f"Every training on {gpu}.")


def fit(runs: Sequence[Run]) -> Iterator[Drawing]:
    """Energy against use of the device, all devices in one."""
    known = [run for run in runs if run.gpu_use is not None]
    if known:
        svg = _scatter(
            "Use of the device", Axis("use, %"), known, lambda run: 100.0 * (run.gpu_use or 0.0), _where
        )
        yield Drawing(svg, "Every training. A network that leaves a device idle pays for it all the same.")


def batch_sizes(found: Findings) -> Iterator[Drawing]:
    """Cost against batch size, a line a network and device; none when there is one batch size only."""
    sizes = sorted({one.cell.batch_size for one in found.cells})
    if len(sizes) < 2:
        return
    lines: dict[str, list[Point]] = {}
    for one in found.cells:
        name = f"{one.cell.architecture}, {one.cell.gpu}"
        lines.setdefault(name, []).append(Point(one.cell.batch_size, one.cost, tip=str(one.cell)))
    series = [Series(name, tuple(points)) for name, points in lines.items()]
    across = Axis("batch size", log=True, marks=tuple(float(size) for size in sizes))
    up = Axis(f"{found.measure}, {found.unit}", log=True)
    yield Drawing(plot("Batch size", across, up, series), "Medians of the cells.")


def _scatter(
    title: str,
    across: Axis,
    runs: Sequence[Run],
    of: Callable[[Run], float],
    series_of: Callable[[Run], str] = lambda run: run.architecture,
) -> str:
    measure = measure_of(runs)
    series = [
        Series(name, tuple(Point(of(run), measure.of(run), tip=_tip(run)) for run in own), line=False)
        for name, own in grouped(runs, series_of).items()
    ]
    return plot(title, across, Axis(f"{measure.name}, {measure.unit}", log=True), series)


def _where(run: Run) -> str:
    return f"{run.architecture}, {run.gpu}"


def _tip(run: Run) -> str:
    return f"{run.cell}, run {run.number}: F1 {run.f1:.4f}"
