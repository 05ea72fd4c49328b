"""Measuring many small networks into a dataset, in an order that an interruption does not spoil."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from zlib import crc32

import numpy as np
import onnx

from bench.naming import network_name
from bench.predict.metering import Measurer
from bench.predict.network_builder import fill
from bench.predict.small_networks import draw_batch, most_operations, small_network
from optimizer.layers.count import count_layers
from optimizer.layers.dataset import MeasuredNetwork, append, load_dataset, write_header
from optimizer.layers.features import features
from optimizer.layers.fusion import fuse
from optimizer.layers.simulated import SimulatedLayers
from server.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Job:
    """One network at one batch size."""

    network: str
    batch: int
    path: Path | None
    seed: int = 0

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from others in a dataset."""
        return self.network, self.batch


def small_jobs(networks: int, batches_each: int, most: float | None = None) -> Iterator[Job]:
    """Yield small random networks, each at several batch sizes; always the same ones.

    `most`: operations of a batch; None: few enough for milliseconds or, where need be, tens of them.
    """
    for seed in range(networks):
        family, model = small_network(seed)
        operations = sum(layer.operations or 0 for layer in count_layers(model, 1))
        rng = np.random.default_rng([seed, 1])
        allowed = most_operations(family) if most is None else most
        drawn = {draw_batch(rng, operations, allowed) for _ in range(batches_each)}
        yield from (Job(f"{family}-{seed}", batch, None, seed) for batch in sorted(drawn))


def file_jobs(paths: Sequence[Path], batches: Sequence[int]) -> Iterator[Job]:
    """Yield ONNX files, each at every batch size; one network after the other in turns, batch by batch."""
    yield from (Job(network_name(path), batch, path) for batch in batches for path in paths)


def measure_into(
    dataset: Path,
    jobs: Sequence[Job],
    provenance: dict[str, object],
    measure: Measurer,
    said: Callable[[str], None] = lambda _: None,
    rounds: int = 1,
) -> int:
    """Measure what the dataset lacks by `measure`; return how many were there already. `said` hears names.

    Each job is measured once a round, so that what disturbs the machine for minutes spoils no job for good.

    Raises:
        DatasetError: the file is something else.
        ConfigError: it was measured on another machine or with other versions.
    """
    done: Counter[tuple[str, int]] = Counter()
    if dataset.exists():
        found = load_dataset(dataset)
        _check_same(found.provenance, provenance, dataset)
        done.update({(one.network, one.batch): one.rounds for one in found.measured})
    else:
        write_header(dataset, provenance)
    for number in range(rounds):
        for job in jobs:
            if done[job.key] <= number:
                append(dataset, _measured(job, measure))
            said(f"{job.network} at batch {job.batch}")
    return sum(min(done[job.key], rounds) for job in jobs)


def _measured(job: Job, measure: Measurer) -> MeasuredNetwork:
    if job.path is not None:
        return measure(job.network, job.path, job.batch)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        _, model = small_network(job.seed)
        fill(model, job.seed)
        onnx.save(model, path)
        return measure(job.network, path, job.batch)


def _check_same(found: object, wanted: dict[str, object], dataset: Path) -> None:
    """Measurements of two machines must not be mixed."""
    assert isinstance(found, dict)  # noqa: S101  # a dataset's provenance is a table
    for key in ("cpu", "device", "engine", "threads", "energy"):
        if found.get(key) != wanted.get(key):
            raise ConfigError(
                f"{dataset} was measured with {key} {found.get(key)!r}, now it is {wanted.get(key)!r}: give "
                "another --dataset"
            )


def simulate_into(
    dataset: Path,
    jobs: Sequence[Job],
    layers: SimulatedLayers,
    clocks_mhz: Sequence[int],
    provenance: dict[str, object],
    rounds: int = 1,
) -> None:
    """Write a dataset anew with what a simulated GPU takes; every job at every clock, means over rounds."""
    write_header(dataset, provenance)
    for job in jobs:
        model = (
            small_network(job.seed)[1] if job.path is None else onnx.load(job.path, load_external_data=False)
        )
        table = features(fuse(count_layers(model, job.batch)))
        rng = np.random.default_rng([crc32(job.network.encode()), job.batch, 3])
        for one in layers.measure(job.network, table, job.batch, clocks_mhz, rng, rounds):
            append(dataset, one)
