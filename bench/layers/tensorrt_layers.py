"""Which nodes of the graph a layer of a TensorRT plan does, as the plan itself says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

_IN_METADATA = re.compile(r"\[ONNX Layer: (?P<node>[^\]]+)\]")
_COPY = "Reformatting CopyNode"  # for the node that it names, and no part of it
_BETWEEN_NAMES = re.compile(r"[\s+,()\[\]{}]+")


@dataclass(frozen=True, slots=True)
class PlanLayer:
    """A layer of a plan: what TensorRT calls its kind, and the graph's nodes in it; () where it says none."""

    kind: str
    nodes: tuple[str, ...]


def read_plan_layers(information: str, known: Set[str]) -> dict[str, PlanLayer]:
    """Read what TensorRT's engine inspector writes, in JSON, of a plan that was built in detail.

    Where there is metadata, it lists the nodes. Elsewhere the layer's name may be made of theirs, as in
    `conv + relu`; a name of a range of nodes (`ForeignNode[first...last]`) says too little.

    Args:
        information: a list of layers under `Layers`; of a plan without details only their names.
        known: the graph's nodes.
    """
    layers: list[Any] = json.loads(information).get("Layers", [])
    named = [layer if isinstance(layer, dict) else {"Name": layer} for layer in layers]
    return {layer["Name"]: PlanLayer(layer.get("LayerType", ""), _nodes(layer, known)) for layer in named}


def nodes_in_name(name: str, known: Set[str]) -> tuple[str, ...]:
    """Return the graph's nodes whose names a layer's name is made of."""
    if "..." in name or name.startswith(_COPY):
        return ()
    if name in known:
        return (name,)
    return tuple(dict.fromkeys(part for part in _BETWEEN_NAMES.split(name) if part in known))


def _nodes(layer: Mapping[str, Any], known: Set[str]) -> tuple[str, ...]:
    listed = _IN_METADATA.findall(layer.get("Metadata", ""))
    found = tuple(dict.fromkeys(name for name in listed if name in known))
    return found or nodes_in_name(layer["Name"], known)
