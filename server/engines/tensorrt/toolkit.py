"""Which TensorRT: NVIDIA's full library or TensorRT-RTX, the same Python behind two module names."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from server.errors import EngineError

TENSORRT = "tensorrt"
TENSORRT_RTX = "tensorrt-rtx"

# The wheels bring the module of the bindings; NVIDIA's own archives bring `tensorrt_rtx`.
_MODULES = {TENSORRT: ("tensorrt",), TENSORRT_RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings")}
_REMEDIES = {
    TENSORRT: "pip install 'boulton[gpu]', on a machine with an NVIDIA GPU",
    TENSORRT_RTX: "pip install 'boulton[rtx]'",
}
_OLDEST = (10, 12)


@dataclass(frozen=True, slots=True)
class Toolkit:
    """A TensorRT that is installed.

    Args:
        trt: the module.
        name: `TENSORRT` or `TENSORRT_RTX`.
        timing_cache: whether it times kernels while it builds, so that the times are worth keeping.
    """

    trt: Any
    name: str
    timing_cache: bool

    @property
    def version(self) -> str:
        """The library's version, e.g. 1.7.1.116."""
        return str(self.trt.__version__)

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What it builds for without such a GPU, e.g. SM80; empty: only for the GPU at hand."""
        known = getattr(self.trt, "ComputeCapability", None)
        members = () if known is None else known.__members__
        return tuple(name for name in members if name.startswith("SM"))


def load_toolkit(name: str) -> Toolkit:
    """Import a TensorRT.

    Args:
        name: `TENSORRT` or `TENSORRT_RTX`.

    Raises:
        EngineError: it is not installed, does not load or is too old, and what to install.
    """
    trt = _import_first(name)
    # TensorRT-RTX settles on kernels when it runs: it has a runtime cache where the other times beforehand.
    toolkit = Toolkit(trt, name, timing_cache=name == TENSORRT)
    if name == TENSORRT and _numbers(toolkit.version) < _OLDEST:
        raise EngineError(
            f"TensorRT {toolkit.version} is installed; 10.12 or newer is needed: {_REMEDIES[name]}"
        )
    return toolkit


def _import_first(name: str) -> Any:  # noqa: ANN401  # the module has no types of its own
    reason: Exception | None = None
    for module in _MODULES[name]:
        try:
            return importlib.import_module(module)
        except Exception as error:  # a library that is missing or does not fit raises what it likes
            reason = reason if reason and not isinstance(reason, ModuleNotFoundError) else error
    raise EngineError(f"{name} cannot be used ({reason}): {_REMEDIES[name]}") from reason


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
