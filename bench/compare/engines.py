"""Which engines take part, which cannot and what to install, and what of them belongs to a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version

from server.engines.registry import engine_kind, engine_names

BUILDERS = frozenset({"tensorrt", "tensorrt-rtx", "onnxruntime-tensorrt", "pytorch-compiled"})
"""Engines that build something at their first start, and find it again at the next."""


@dataclass(frozen=True, slots=True)
class Engines:
    """Those that run here, and for the others why not."""

    present: tuple[str, ...]
    missing: dict[str, str]


def choose_engines(wanted: Sequence[str] | None) -> Engines:
    """Return the engines that are wanted, None for all. Raises EngineError for a name that is none."""
    names = engine_names(served=False) if wanted is None else tuple(dict.fromkeys(wanted))
    reasons = {name: engine_kind(name).available() for name in names}
    return Engines(
        tuple(name for name, reason in reasons.items() if reason is None),
        {name: reason for name, reason in reasons.items() if reason is not None},
    )


def versions_of(engine: str) -> dict[str, str]:
    """Return the versions of the packages that an engine is made of."""
    distributions = _distributions()
    modules = (*engine_kind(engine).modules, "server")
    names = {name for module in modules for name in distributions.get(module, ())}
    return {name: _version(name) for name in sorted(names)}


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Which packages bring which modules: the same while this process lives, and a second to find."""
    return packages_distributions()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
