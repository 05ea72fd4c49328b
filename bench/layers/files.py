"""A study of layers for programs: JSON, and CSV with a line for each layer."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import Any

from bench.compare.networks import NetworkFile
from bench.layers.cost import LayerCost
from bench.layers.energy import LayerEnergy
from bench.layers.study import Study
from bench.serving.machine import Machine

COLUMNS = (
    "place",
    "layer",
    "kind",
    "nodes",
    "seconds",
    "share",
    "multiply_adds",
    "operations",
    "traffic_bytes",
    "operations_per_byte",
    "operations_per_s",
    "bytes_per_s",
    "bound",
    "of_roof",
    "above_idle_j",
    "above_idle_w",
    "energy_rule",
)


def as_csv(study: Study) -> str:
    """Return a line for each layer, in order of execution; what is not known or not measured is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in _rows(study):
        writer.writerow({**row, "nodes": " ".join(row["nodes"])})
    return text.getvalue()


def as_json(study: Study, network: NetworkFile, machine: Machine) -> str:
    """Return everything; what is not known or not measured is null."""
    run, asked = study.run, study.question
    table = {
        "network": network.network,
        "precision": network.precision,
        "sha256": network.sha256,
        "network_notes": list(network.notes),
        "engine": asked.engine,
        "batch": asked.batch,
        "threads": asked.threads,
        "repeats": asked.repeats,
        "machine": asdict(machine),
        "times": {
            "layers_s": run.layers_s,
            "alone_s": run.alone_s,
            "watched_s": run.watched_s,
            "layers_over_alone": run.adds_up,
            "covered": run.covered,
        },
        "unseen": list(run.unseen),
        "roofline": asdict(study.roofline),
        "totals": asdict(study.totals),
        "energy": _network(study),
        "layers": list(_rows(study)),
        "kinds": [{**asdict(kind), "multiply_add_s": kind.multiply_add_s} for kind in study.kinds],
        "findings": list(study.findings),
        "not_metered": list(study.metered.notes),
    }
    return json.dumps(table, indent=2) + "\n"


def _network(study: Study) -> dict[str, Any] | None:
    network = study.metered.network
    if network is None:
        return None
    known = {"batch_j": network.batch_j, "above_idle_j": network.above_idle_j}
    return {**asdict(network), **known, "layers_over_network": study.metered.adds_up}


def _rows(study: Study) -> list[dict[str, Any]]:
    pairs = zip(study.layers, study.metered.layers, strict=True)
    return [_row(place, layer, energy) for place, (layer, energy) in enumerate(pairs, 1)]


def _row(place: int, layer: LayerCost, energy: LayerEnergy | None) -> dict[str, Any]:
    return {
        "place": place,
        "layer": layer.name,
        "kind": layer.kind,
        "nodes": [part.name for part in layer.layers],
        "seconds": layer.seconds,
        "share": layer.share,
        "multiply_adds": layer.multiply_adds,
        "operations": layer.operations,
        "traffic_bytes": layer.traffic_bytes,
        "operations_per_byte": layer.intensity,
        "operations_per_s": layer.operations_per_s,
        "bytes_per_s": layer.bytes_per_s,
        "bound": layer.bound.value if layer.bound else None,
        "of_roof": layer.of_roof,
        "above_idle_j": energy.above_idle_j if energy else None,
        "above_idle_w": energy.above_idle_w if energy else None,
        "energy_rule": energy.rule.value if energy else None,
    }
