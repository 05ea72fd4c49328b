"""Reading what ONNX Runtime's profiler wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from server.errors import EngineError

_KERNEL = "_kernel_time"
_RUN = "model_run"
_US = 1e-6


@dataclass(frozen=True, slots=True)
class ProfiledNode:
    """A node of the executed graph.

    Args:
        name: in that graph.
        operator: ONNX Runtime's.
        seconds: in each run; the profiler counts whole microseconds and leaves off the rest.
    """

    name: str
    operator: str
    seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """The runs of a session.

    Args:
        nodes: in order of execution.
        runs_s: each run from call to return.
    """

    nodes: tuple[ProfiledNode, ...]
    runs_s: tuple[float, ...]

    @property
    def covered(self) -> float:
        """The nodes' part of a run: its median over the runs."""
        inside_s = np.sum([node.seconds for node in self.nodes], axis=0)
        return float(np.median(inside_s / np.asarray(self.runs_s)))


def read_profile(path: Path, skipped: Sequence[int] = ()) -> Profile:
    """Read a profile.

    Args:
        path: what `end_profiling` wrote.
        skipped: runs to leave out, counted from 0.

    Raises:
        EngineError: a node ran more or less often than the network, so that its time cannot be told.
    """
    events = sorted(json.loads(path.read_text()), key=lambda event: event["ts"])
    runs_us = [event["dur"] for event in events if event["name"] == _RUN]
    nodes: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(_KERNEL):
            nodes.setdefault((event["name"], event["args"]["node_index"]), []).append(event)
    kept = [place for place in range(len(runs_us)) if place not in set(skipped)]
    return Profile(
        tuple(_node(times, len(runs_us), kept) for times in nodes.values()),
        tuple(runs_us[place] * _US for place in kept),
    )


def _node(events: Sequence[dict[str, Any]], runs: int, kept: Sequence[int]) -> ProfiledNode:
    name = events[0]["name"].removesuffix(_KERNEL)
    if len(events) != runs:
        raise EngineError(
            f"{name} ran {len(events)} times in {runs} runs: a network with branches or loops cannot be "
            "timed layer by layer"
        )
    seconds = tuple(events[place]["dur"] * _US for place in kept)
    return ProfiledNode(name, events[0]["args"]["op_name"], seconds)
