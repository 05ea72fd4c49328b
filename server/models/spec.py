"""What a client may know about one loaded version: names, types, shapes, limits."""

from __future__ import annotations

from dataclasses import dataclass

from server.engines.engine import Engine, TensorSpec
from server.models.repository import ImageInput, ModelEntry


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One loaded version as clients see it.

    Args:
        name: the model's name.
        version: the version's number.
        platform: what runs it, e.g. `onnxruntime_onnx`.
        max_batch: most images in one request; 0 when the network has no batch dimension.
        inputs: inputs in graph order, shapes without the batch dimension.
        outputs: outputs in graph order, shapes without the batch dimension.
        image: how encoded images are accepted; None when they are not.
        labels: class labels by index; empty when the model has none.
        precision: what the network computes in, e.g. `fp16`; where the repository does not say, the type of
            its first output stands for it.
    """

    name: str
    version: int
    platform: str
    max_batch: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    image: ImageInput | None = None
    labels: tuple[str, ...] = ()
    precision: str = "unknown"

    def wire_shape(self, spec: TensorSpec) -> tuple[int, ...]:
        """The shape that metadata shows: led by -1 where there is a batch dimension."""
        return (-1, *spec.shape) if self.max_batch else spec.shape


def spec_of(entry: ModelEntry, engine: Engine) -> ModelSpec:
    """Join what the repository says with what the engine can do."""
    return ModelSpec(
        name=entry.name,
        version=entry.version,
        platform=engine.platform,
        max_batch=_max_batch(entry, engine),
        inputs=engine.inputs,
        outputs=engine.outputs,
        image=entry.image,
        labels=entry.labels,
        precision=entry.precision or _output_type(engine),
    )


def _output_type(engine: Engine) -> str:
    return engine.outputs[0].datatype.lower() if engine.outputs else "unknown"


def _max_batch(entry: ModelEntry, engine: Engine) -> int:
    if engine.max_batch == 0 or entry.max_batch is None:
        return engine.max_batch
    return min(entry.max_batch, engine.max_batch)
