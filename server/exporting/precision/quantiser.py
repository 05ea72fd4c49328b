"""Static INT8 with Q/DQ nodes, by ONNX Runtime's quantiser, laid out as TensorRT takes them.

TensorRT wants symmetric INT8 (zero points of 0), biases in float, and Q/DQ pairs at the inputs of
convolutions and matrix products only: between a convolution and its activation a pair would keep the two from
being fused. Weights have one scale an output channel, activations one a tensor, from the least and largest
value seen in calibration.
"""

from __future__ import annotations

import importlib
import logging
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, version_converter

from server.engines.engine import Array
from server.errors import ExportError
from server.exporting.precision.kept import with_names
from server.exporting.sessions import save_model
from server.onnx_graph import graph_inputs

QUANTISED_OPERATORS = ("Conv", "Gemm", "MatMul")
"""What runs in INT8: all but a sliver of a CNN's arithmetic. Everything between them stays in float32."""

_LEAST_OPSET = 13  # the first whose Q/DQ nodes take one scale a channel
_OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "MatMulConstBOnly": True,
    "OpTypesToExcludeOutputQuantization": list(QUANTISED_OPERATORS),
}


class Quantiser:
    """A graph that was calibrated once, to be quantised as often as needed. Made by `calibrated`."""

    def __init__(self, model: ModelProto, ranges: object) -> None:
        self._model = model
        self._ranges = ranges

    @property
    def model(self) -> ModelProto:
        """The float32 graph, with batch normalisation folded and a name to every node."""
        return self._model

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that can run in INT8, in the graph's order."""
        weights = {tensor.name for tensor in self._model.graph.initializer}
        return tuple(
            node.name
            for node in self._model.graph.node
            if node.op_type in QUANTISED_OPERATORS and node.input[1] in weights
        )

    def quantised(self, without: Collection[str] = ()) -> ModelProto:
        """Return an INT8 copy in which the nodes named in `without` stay in float32.

        Raises:
            ExportError: ONNX Runtime's quantiser cannot do it.
        """
        ort, qdq = _quantisation(), importlib.import_module("onnxruntime.quantization.qdq_quantizer")
        copy = ModelProto()
        copy.CopyFrom(self._model)
        int8, wanted = ort.QuantType.QInt8, [name for name in self.nodes if name not in without]
        if not wanted:
            return copy
        with _explained("quantised"):
            quantizer = qdq.QDQQuantizer(
                copy,
                True,
                False,
                int8,
                int8,
                self._ranges,
                wanted,
                [],
                list(QUANTISED_OPERATORS),
                dict(_OPTIONS),
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
            model: ModelProto = quantizer.model.model
        return model


def calibrated(model: ModelProto, images: Array, batch: int | None) -> Quantiser:
    """Fold batch normalisation, then note the range of every tensor while the images pass through.

    Args:
        model: a float32 graph with one input.
        images: float32 `[n, ...]`, as the network takes them.
        batch: items that the graph takes at once; None: any number.

    Raises:
        ExportError: ONNX Runtime is missing, or cannot calibrate the graph; or there is nothing to quantise.
    """
    ort = _quantisation()
    (value,) = graph_inputs(model)
    with tempfile.TemporaryDirectory(prefix="boulton-") as directory, _explained("calibrated"):
        prepared = _prepared(model, Path(directory))
        save_model(prepared, Path(directory) / "prepared.onnx")
        calibrator = ort.create_calibrator(
            Path(directory) / "prepared.onnx",
            list(QUANTISED_OPERATORS),
            augmented_model_path=str(Path(directory) / "augmented.onnx"),
            calibrate_method=ort.CalibrationMethod.MinMax,
        )
        calibrator.collect_data(_feeds(ort, value.name, images, batch or 1))
        quantiser = Quantiser(prepared, calibrator.compute_data())
    if not quantiser.nodes:
        raise ExportError(
            f"--precision int8: the graph has no {', '.join(QUANTISED_OPERATORS)} with constant weights"
        )
    return quantiser


def _feeds(ort: Any, name: str, images: Array, batch: int) -> Any:  # noqa: ANN401 - onnxruntime ships no types
    """Return a reader of the calibration images, as ONNX Runtime asks for: an object with `get_next`."""
    rows = [np.arange(start, start + batch) % len(images) for start in range(0, len(images), batch)]
    feeds = iter([{name: np.ascontiguousarray(images[chosen])} for chosen in rows])

    class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Array] | None:
            return next(feeds, None)

    return Reader()


def _prepared(model: ModelProto, directory: Path) -> ModelProto:
    """Return a copy of opset 13 or newer, batch normalisation folded in, with a name to every node."""
    opset = next((entry.version for entry in model.opset_import if not entry.domain), 0)
    current = model if opset >= _LEAST_OPSET else version_converter.convert_version(model, _LEAST_OPSET)
    save_model(current, directory / "given.onnx")
    preparing = importlib.import_module("onnxruntime.quantization.shape_inference")
    preparing.quant_pre_process(
        str(directory / "given.onnx"), str(directory / "folded.onnx"), skip_symbolic_shape=True
    )
    return with_names(onnx.load(directory / "folded.onnx"))


def _quantisation() -> Any:  # noqa: ANN401 - onnxruntime ships no types
    path = list(sys.path)
    try:
        return importlib.import_module("onnxruntime.quantization")
    except ImportError as error:
        raise ExportError(
            f"--precision int8 needs ONNX Runtime's quantiser ({error}); "
            "install it with: pip install 'boulton[cpu]'"
        ) from error
    finally:
        sys.path[:] = path  # it adds a directory that has an `optimizer.py`, which would be taken for ours


@contextmanager
def _explained(done: str) -> Iterator[None]:
    """Hold back the quantiser's chatter; what it raises becomes an `ExportError`."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    except ExportError:
        raise
    except Exception as error:  # it raises whatever its rewriting trips over
        raise ExportError(f"the graph cannot be {done}: {error}; choose --precision fp16") from error
    finally:
        logging.disable(before)
