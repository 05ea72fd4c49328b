"""From records to lines: medians with intervals, ratios to the baseline, and which engine is best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.compare.estimates import Estimate, estimate, halves_apart, quantile
from bench.compare.plan import Cell, Subject
from bench.compare.records import Record, Turn

NOISE_ALLOWED = 0.05
"""By how much the two halves of a cell's turns may differ before the machine counts as too noisy."""

WANTED = {"tensorflow": 1.53, "pytorch": 2.0}
"""How many times a rival's images/J the best engine shall make; 1.53 was published of TensorRT."""

Value = Callable[[Turn], float | None]


@dataclass(frozen=True, slots=True)
class Baseline:
    """What ratios are to: an engine, in one precision or, with None, in that of each line."""

    engine: str
    precision: str | None = None

    def __str__(self) -> str:
        """As on the command line."""
        return self.engine if self.precision is None else f"{self.engine}:{self.precision}"

    def cell(self, cell: Cell) -> Cell:
        """Return the cell that a cell is compared with."""
        subject = cell.subject
        precision = self.precision or subject.precision
        return Cell(Subject(subject.network, precision, self.engine), cell.batch)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A cell's figure over another's, turn by turn.

    Args:
        of: what is compared, e.g. `images/s`.
        estimate: median of the turns' ratios with its interval.
        side_by_side: whether its turns were measured in the same run as their counterparts. If not, they are
            figures of two runs, and their ratio is no comparison: it is shown nowhere.
    """

    of: str
    estimate: Estimate
    side_by_side: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One cell, ready to be shown; None: not measured.

    Args:
        record: what it is made of.
        p50_ms: of a batch.
        p99_ms: of all batches of all turns.
        images_per_s: throughput.
        power_w: of the device.
        joules_per_image: idle power included.
        images_per_joule: the same, the other way round.
        sources: of the energy; empty: not measured.
        speed: images/s over the baseline's.
        thrift: images/J over the baseline's.
        apart: by what share the medians of the first and second half of its turns differ.
    """

    record: Record
    p50_ms: Estimate | None
    p99_ms: float | None
    images_per_s: Estimate | None
    power_w: Estimate | None
    joules_per_image: Estimate | None
    images_per_joule: Estimate | None
    sources: tuple[str, ...]
    speed: Ratio | None
    thrift: Ratio | None
    apart: float | None

    @property
    def cell(self) -> Cell:
        """Which it is."""
        return self.record.cell

    @property
    def noisy(self) -> bool:
        """Whether its two halves disagree."""
        return self.apart is not None and self.apart > NOISE_ALLOWED


@dataclass(frozen=True, slots=True)
class Verdict:
    """The best engine against a rival, each at its own best batch size.

    Args:
        network: its name.
        precision: of both.
        best: the winner's cell.
        rival: the other's.
        ratio: the best's figure over the rival's.
        wanted: the least ratio hoped for; None where energy was not measured.
        noisy: whether a cell that the best or the rival was chosen from was too noisy.
    """

    network: str
    precision: str
    best: Cell
    rival: Cell
    ratio: Ratio
    wanted: float | None
    noisy: bool = False


def summarise(records: Sequence[Record], baseline: Baseline | None) -> tuple[Line, ...]:
    """Return one line a record, in their order."""
    by_cell = {record.cell: record for record in records}
    return tuple(_line(record, _base(record, by_cell, baseline)) for record in records)


def verdicts(lines: Sequence[Line]) -> tuple[Verdict, ...]:
    """Compare each network's best engine with TensorFlow and with PyTorch eager, by images/J.

    Where energy was not measured on both sides, by images/s. The best is chosen by the same measurements, so
    where engines are close its lead is a little flattered; the interval does not cover that.
    """
    groups = dict.fromkeys((line.cell.subject.network, line.cell.subject.precision) for line in lines)
    found = (_verdict(lines, *group, rival) for group in groups for rival in WANTED)
    return tuple(verdict for verdict in found if verdict is not None)


def noisy_share(lines: Sequence[Line]) -> tuple[int, int]:
    """Return how many lines are noisy, and of how many that can be told."""
    told = [line for line in lines if line.apart is not None]
    return sum(line.noisy for line in told), len(told)


def pareto(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Return the lines that no other beats in both latency and energy of an image, by rising latency."""
    measured = [
        (x.p50_ms.value, x.joules_per_image.value, x) for x in lines if x.p50_ms and x.joules_per_image
    ]
    front: list[Line] = []
    least_j = float("inf")
    for _, joules, line in sorted(measured, key=lambda entry: entry[:2]):
        if joules < least_j:
            front.append(line)
            least_j = joules
    return tuple(front)


def _base(record: Record, by_cell: Mapping[Cell, Record], baseline: Baseline | None) -> Record | None:
    return None if baseline is None else by_cell.get(baseline.cell(record.cell))


def _line(record: Record, base: Record | None) -> Line:
    batch, turns = record.cell.batch, record.turns
    joules = [value for turn in turns if (value := turn.joules_per_image(batch)) is not None]
    watts = [value for turn in turns if (value := turn.power_w) is not None]
    latencies_ms = [latency for turn in turns for latency in turn.latencies_ms]
    return Line(
        record=record,
        p50_ms=estimate([turn.p50_ms for turn in turns]),
        p99_ms=quantile(latencies_ms, 0.99) if latencies_ms else None,
        images_per_s=estimate([turn.images_per_s(batch) for turn in turns]),
        power_w=estimate(watts),
        joules_per_image=estimate(joules),
        images_per_joule=estimate([1.0 / value for value in joules]),
        sources=tuple(sorted({turn.source for turn in turns if turn.energy_j is not None})),
        speed=None if base is None else ratio("images/s", record, base, _rate),
        thrift=None if base is None else ratio("images/J", record, base, _thrift),
        apart=halves_apart([turn.p50_ms for turn in turns]),
    )


def ratio(of: str, record: Record, base: Record, value: Callable[[int], Value]) -> Ratio | None:
    """Compare two records turn by turn, as far as they were measured side by side where any turn was.

    None when no turn has both figures.
    """
    ours, theirs = value(record.cell.batch), value(base.cell.batch)
    others = {turn.number: turn for turn in base.turns}
    pairs = [(turn, others[turn.number]) for turn in record.turns if turn.number in others]
    figures = [(a.run == b.run, ours(a), theirs(b)) for a, b in pairs]
    known = [(same, x / y) for same, x, y in figures if x is not None and y]
    together = any(same for same, _ in known)
    middle = estimate([quotient for same, quotient in known if same or not together])
    return None if middle is None else Ratio(of, middle, together)


def _rate(batch: int) -> Value:
    return lambda turn: turn.images_per_s(batch)


def _thrift(batch: int) -> Value:
    def images_per_joule(turn: Turn) -> float | None:
        joules = turn.joules_per_image(batch)
        return None if not joules else 1.0 / joules

    return images_per_joule


def _verdict(lines: Sequence[Line], network: str, precision: str, rival: str) -> Verdict | None:
    own = [
        line
        for line in lines
        if (line.cell.subject.network, line.cell.subject.precision) == (network, precision)
        and line.images_per_s
    ]
    theirs = [line for line in own if line.cell.subject.engine == rival]
    if not theirs:
        return None
    # Engines on a CPU and on a GPU are charged by different counters: only those of the rival's side compete.
    side = theirs[0].record.start.on_gpu if theirs[0].record.start else False
    own = [line for line in own if line.record.start and line.record.start.on_gpu == side]
    measured = any(line.images_per_joule for line in theirs)
    of, value = ("images/J", _thrift) if measured else ("images/s", _rate)
    best, base = max(own, key=_by(of)), max(theirs, key=_by(of))
    found = ratio(of, best.record, base.record, value)
    wanted = WANTED[rival] if measured else None
    noisy = any(line.noisy for line in own)
    return None if found is None else Verdict(network, precision, best.cell, base.cell, found, wanted, noisy)


def _by(of: str) -> Callable[[Line], float]:
    def height(line: Line) -> float:
        figure = line.images_per_joule if of == "images/J" else line.images_per_s
        return figure.value if figure else 0.0

    return height
