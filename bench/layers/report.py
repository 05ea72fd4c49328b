"""A study of layers for people: the table, the totals and the findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.compare.networks import NetworkFile
from bench.layers.cost import LayerCost
from bench.layers.energy import LayerEnergy, Rule
from bench.layers.groups import KindCost
from bench.layers.study import Study

_UNKNOWN = "-"
_NARROW: dict[str, Any] = {"box": SIMPLE_HEAD, "pad_edge": False, "padding": (0, 1, 0, 0)}
_FAR_OFF = 0.1  # of the time of a batch
NOT_MEASURED = "not measured"
_RULES = {
    Rule.REPEATED: "power of each layer repeated alone, less idle, times its time in the network",
    Rule.BY_TIME: "the network's energy above idle, divided by the layers' parts of the time",
}


def show(study: Study, network: NetworkFile, console: Console, top: int) -> None:
    """Print it all; of the layers only the `top` that take most time, 0 for all of them."""
    asked = study.question
    images = "1 image" if asked.batch == 1 else f"{asked.batch} images"
    console.print(
        f"[bold]{escape(network.network)}[/bold] in {network.precision} on {asked.engine}, a batch of "
        f"{images}, {asked.threads} CPU thread{'s' * (asked.threads != 1)}, {asked.repeats} runs"
    )
    console.print(_layer_table(study, top))
    console.print(_kind_table(study.kinds))
    for line in (*_totals(study), *(f"note        {note}" for note in network.notes)):
        console.print(escape(line), highlight=False)
    console.print("\n[bold]Findings[/bold]")
    for finding in study.findings:
        console.print(f"- {escape(finding)}", highlight=False)


def _layer_table(study: Study, top: int) -> Table:
    table = Table(title="layers, as the engine executes them", title_justify="left", **_NARROW)
    for heading in ("#", "layer", "kind"):
        table.add_column(heading, justify="right" if heading == "#" else "left")
    headings = (
        "us",
        "time",
        "MFLOP",
        "kB",
        "FLOP/B",
        "GFLOP/s",
        "GB/s",
        "bound",
        "of roof",
        *_energy_head(study),
    )
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    longest = sorted(range(len(study.layers)), key=lambda place: -study.layers[place].seconds)
    shown = sorted(longest[: top or None])
    for place in shown:
        table.add_row(*_layer_row(place, study.layers[place], study.metered.layers[place], study))
    rest = [study.layers[place] for place in longest[top:]] if top else []
    if rest:
        time = sum(layer.seconds for layer in rest)
        share = sum(layer.share for layer in rest)
        table.add_row("", f"{len(rest)} more (--top 0)", "", f"{time * 1e6:.0f}", f"{share:.1%}")
    return table


def _energy_head(study: Study) -> tuple[str, ...]:
    return ("mJ", "W") if study.metered.network else ()


def _layer_row(place: int, layer: LayerCost, energy: LayerEnergy | None, study: Study) -> Iterator[str]:
    parts = len(layer.layers) - 1
    yield str(place + 1)
    yield escape(layer.name) + (f" +{parts}" if parts > 0 else "")
    yield layer.kind
    yield f"{layer.seconds * 1e6:.0f}"
    yield f"{layer.share:.1%}"
    yield _scaled(layer.operations, 1e6, 1)
    yield _scaled(layer.traffic_bytes or None, 1e3, 0)
    yield _scaled(layer.intensity, 1.0, 1)
    yield _scaled(layer.operations_per_s or None, 1e9, 1)
    yield _scaled(layer.bytes_per_s, 1e9, 1)
    yield layer.bound.value if layer.bound else _UNKNOWN
    yield _UNKNOWN if layer.of_roof is None else f"{layer.of_roof:.0%}"
    if study.metered.network:
        yield _scaled(energy.above_idle_j if energy else None, 1e-3, 3)
        yield _scaled(energy.above_idle_w if energy else None, 1.0, 1)


def _kind_table(kinds: Sequence[KindCost]) -> Table:
    table = Table(title="kinds of layers", title_justify="left")
    table.add_column("kind")
    for heading in ("layers", "us", "time", "MFLOP", "kB", "ps a multiply-add", "energy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for kind in kinds:
        table.add_row(
            kind.kind,
            str(kind.layers),
            f"{kind.seconds * 1e6:.0f}",
            f"{kind.share:.1%}",
            _scaled(kind.operations, 1e6, 1),
            _scaled(kind.traffic_bytes, 1e3, 0),
            _scaled(kind.multiply_add_s, 1e-12, 1),
            NOT_MEASURED if kind.energy_share is None else f"{kind.energy_share:.1%}",
        )
    return table


def _totals(study: Study) -> Iterator[str]:
    run, totals, roof = study.run, study.totals, study.roofline
    yield (
        f"network     {totals.parameters:,} parameters, {totals.multiply_adds:,} multiply-adds, "
        f"{totals.operations / 1e9:.3f} GFLOP"
    )
    if totals.unknown:
        yield f"            without {', '.join(totals.unknown)}: their arithmetic is not known"
    yield (
        f"time        {run.layers_s * 1e3:.3f} ms in layers, {run.alone_s * 1e3:.3f} ms the quickest batch "
        f"untimed: ratio {run.adds_up:.3f}"
    )
    yield (
        f"            while timed, layers are {run.covered:.1%} of a run; timing makes a batch take "
        f"{run.watching:.2f} times as long"
    )
    if abs(run.adds_up - 1.0) > _FAR_OFF:
        yield (
            "            the layers do not explain the whole: time passes between them, or other processes "
            "interrupted either; try more --repeats, or an idle machine"
        )
    yield (
        f"roofline    {roof.operations_per_s / 1e9:.1f} GFLOP/s, {roof.bytes_per_s / 1e9:.1f} GB/s "
        f"({roof.source}); layers whose data lie in caches may be above it"
    )
    if run.unseen:
        yield f"not seen    {', '.join(run.unseen)}: done inside others, or not at all"
    yield from _energy(study)


def _energy(study: Study) -> Iterator[str]:
    network = study.metered.network
    if network is None:
        yield f"energy      {NOT_MEASURED}: {'; '.join(study.metered.notes)}"
        return
    yield (
        f"energy      {network.batch_j * 1e3:.3f} mJ a batch, of it {network.above_idle_j * 1e3:.3f} mJ "
        f"above idle; {network.power_w:.1f} W, idle {network.idle_w:.1f} W ({network.source})"
    )
    rules = {energy.rule for energy in study.metered.layers if energy is not None}
    for rule in sorted(rules):
        yield f"            of a layer ({rule.value}): {_RULES[rule]}"
    if Rule.REPEATED in rules and study.metered.adds_up is not None:
        yield f"            layers together over the network: ratio {study.metered.adds_up:.3f}"
    for note in study.metered.notes:
        yield f"            {note}"


def _scaled(value: float | None, unit: float, places: int) -> str:
    return _UNKNOWN if value is None else f"{value / unit:,.{places}f}"
