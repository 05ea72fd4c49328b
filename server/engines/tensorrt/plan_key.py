"""What a plan depends on. A plan made for anything else must not run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from server.engines.tensorrt.builder import BuildOptions, BuildRequest
from server.engines.tensorrt.toolkit import Toolkit
from server.errors import EngineError


@dataclass(frozen=True, slots=True)
class GpuIdentity:
    """A GPU as far as plans depend on it.

    Args:
        name: e.g. NVIDIA A100-SXM4-80GB; empty: any of the capability, for what was built without one.
        capability: e.g. SM80.
        driver: the driver's version; empty: any, likewise.
    """

    name: str
    capability: str
    driver: str

    @property
    def any_such(self) -> GpuIdentity:
        """Any GPU of the same capability."""
        return GpuIdentity("", self.capability, "")


@dataclass(frozen=True, slots=True)
class PlanKey:
    """All that a plan depends on. Two plans with the same key do the same."""

    onnx_sha256: str
    toolkit: str
    gpu: GpuIdentity
    batches: tuple[int, ...]
    options: BuildOptions

    def header(self) -> dict[str, str]:
        """Everything by name, in words for messages."""
        return {
            "ONNX file": self.onnx_sha256,
            **kernel_times_header(self.toolkit, self.gpu),
            "batches": ",".join(map(str, self.batches)),
            "workspace": str(self.options.workspace_bytes),
            "TF32": str(self.options.tf32),
            "layer names": str(self.options.detailed),
        }

    def digest(self) -> str:
        """A short name for it."""
        return short_digest(self.header())


def plan_key(toolkit: Toolkit, request: BuildRequest, gpu: GpuIdentity) -> PlanKey:
    """Make the key of what a request would build. Raises `EngineError` when the ONNX file cannot be read."""
    return PlanKey(
        onnx_sha256=onnx_digest(request.onnx_path),
        toolkit=f"{toolkit.name} {toolkit.version}",
        gpu=gpu,
        batches=tuple(sorted(request.batches)),
        options=request.options,
    )


def kernel_times_header(toolkit: str, gpu: GpuIdentity) -> dict[str, str]:
    """What kernel times, and kernels compiled for a GPU, depend on."""
    return {"TensorRT": toolkit, "GPU": gpu.name, "compute capability": gpu.capability, "driver": gpu.driver}


def short_digest(header: dict[str, str]) -> str:
    """16 hexadecimal digits that stand for a header."""
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()[:16]


def onnx_digest(path: Path) -> str:
    """SHA-256 of an ONNX file and of the weights that lie beside it."""
    digest = hashlib.sha256()
    try:
        for file in (path, *_beside(path)):
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    except OSError as error:
        raise EngineError(f"{error.filename} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _beside(path: Path) -> tuple[Path, ...]:
    try:
        weights = onnx.load(str(path), load_external_data=False).graph.initializer
    except OSError:
        raise
    except Exception as error:  # protobuf and onnx each raise their own
        raise EngineError(f"{path}: not a readable ONNX file: {error}") from error
    outside = [ExternalDataInfo(tensor).location for tensor in weights if uses_external_data(tensor)]
    return tuple(path.parent / location for location in sorted(set(outside)))
