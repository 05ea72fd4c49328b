"""Writing graphs of networks layer by layer, to be measured: weights have sizes, and numbers at random."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

OPSET, _IR = 20, 9


class NetworkBuilder:
    """Writes an ONNX graph layer by layer; every method takes and returns the name of a tensor.

    Weights have sizes and no numbers: see `fill`.

    Args:
        channels: of the input.
        side: height and width of the input; 0 for an input of numbers in a row.
    """

    def __init__(self, channels: int, side: int) -> None:
        self._nodes: list[Any] = []
        self._weights: list[TensorProto] = []
        self._count = 0
        self.shapes: dict[str, tuple[int, int]] = {"input": (channels, side)}

    def convolution(
        self, x: str, out: int, kernel: int, stride: int = 1, *, groups: int = 1, act: str = ""
    ) -> str:
        """Append a convolution that keeps the side at stride 1, and an activation if `act` names one."""
        channels, side = self.shapes[x]
        weight = self._weight(out, channels // groups, kernel, kernel)
        pad = kernel // 2
        answer_side = (side + 2 * pad - kernel) // stride + 1
        sizes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4, "group": groups}
        y = self._add("Conv", [x, weight, self._weight(out)], (out, answer_side), **sizes)
        return self.activation(y, act) if act else y

    def activation(self, x: str, operator: str) -> str:
        """Append an activation; `Clip` is that to [0, 6]."""
        if operator == "Clip":
            limits = [self._constant(np.float32(0.0)), self._constant(np.float32(6.0))]
            return self._add("Clip", [x, *limits], self.shapes[x])
        return self._add(operator, [x], self.shapes[x])

    def pooling(
        self, x: str, operator: str, kernel: int, stride: int, pad: int = 0, *, overlapping: bool = False
    ) -> str:
        """Append a pooling; `overlapping` windows may reach over the edge: the side is rounded up."""
        channels, side = self.shapes[x]
        sizes: dict[str, Any] = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
        free = side + 2 * pad - kernel
        if overlapping:
            sizes["ceil_mode"] = 1
            return self._add(operator, [x], (channels, -(-free // stride) + 1), **sizes)
        return self._add(operator, [x], (channels, free // stride + 1), **sizes)

    def global_mean(self, x: str) -> str:
        """Append a mean over all pixels, and make a row of numbers of it."""
        axes = self._constant(np.array([-1, -2], np.int64))
        return self._add("ReduceMean", [x, axes], (self.shapes[x][0], 0), keepdims=0)

    def weighed(self, x: str, hidden: int) -> str:
        """Weigh each channel by what two layers make of all means, as squeeze-and-excitation does."""
        channels, side = self.shapes[x]
        y = self._add("GlobalAveragePool", [x], (channels, 1))
        y = self.convolution(y, hidden, 1, act="Relu")
        y = self.activation(self.convolution(y, channels, 1), "Sigmoid")
        return self._add("Mul", [x, y], (channels, side))

    def shuffled(self, x: str, groups: int) -> str:
        """Take channels from each of the groups in turn."""
        channels, side = self.shapes[x]
        apart = self._constant(np.array([0, groups, channels // groups, side, side], np.int64))
        together = self._constant(np.array([0, channels, side, side], np.int64))
        y = self._add("Reshape", [x, apart], (channels, side))
        y = self._add("Transpose", [y], (channels, side), perm=[0, 2, 1, 3, 4])
        return self._add("Reshape", [y, together], (channels, side))

    def framed(self, x: str, width: int = 1) -> str:
        """Put noughts around each channel."""
        channels, side = self.shapes[x]
        pads = self._constant(np.array([0, 0, width, width] * 2, np.int64))
        return self._add("Pad", [x, pads], (channels, side + 2 * width))

    def sliced(self, x: str, axis: int, first: int, last: int, step: int = 1) -> str:
        """Take some of the channels (axis 1), or of the pixels along both sides (axis 2)."""
        channels, side = self.shapes[x]
        axes = [1] if axis == 1 else [2, 3]
        numbers = ([first] * len(axes), [last] * len(axes), axes, [step] * len(axes))
        taken = len(range(first, last, step))
        shape = (taken, side) if axis == 1 else (channels, taken)
        return self._add("Slice", [x, *(self._constant(np.array(n, np.int64)) for n in numbers)], shape)

    def flat(self, x: str) -> str:
        """Make a row of numbers."""
        channels, side = self.shapes[x]
        return self._add("Flatten", [x], (channels * side * side, 0))

    def product(self, x: str, out: int, act: str = "") -> str:
        """Append a fully connected layer."""
        weights = [self._weight(out, self.shapes[x][0]), self._weight(out)]
        y = self._add("Gemm", [x, *weights], (out, 0), transB=1)
        return self.activation(y, act) if act else y

    def joined(self, operator: str, *inputs: str) -> str:
        """Append an Add or a Concat of channels."""
        channels = (
            sum(self.shapes[x][0] for x in inputs) if operator == "Concat" else self.shapes[inputs[0]][0]
        )
        more = {"axis": 1} if operator == "Concat" else {}
        return self._add(operator, list(inputs), (channels, self.shapes[inputs[0]][1]), **more)

    def normalisation(self, x: str) -> str:
        """Append a batch normalisation."""
        channels = self.shapes[x][0]
        ones = [self._constant(np.ones(channels, np.float32)) for _ in range(4)]
        return self._add("BatchNormalization", [x, *ones], self.shapes[x])

    def local_response(self, x: str) -> str:
        """Append a local response normalisation over five channels."""
        return self._add("LRN", [x], self.shapes[x], size=5)

    def softmax(self, x: str) -> str:
        """Append a softmax."""
        return self._add("Softmax", [x], self.shapes[x], axis=-1)

    def model(self, y: str) -> ModelProto:
        """Return the graph up to `y`, for any batch."""
        inputs = helper.make_tensor_value_info("input", TensorProto.FLOAT, self._sizes("input"))
        outputs = helper.make_tensor_value_info(y, TensorProto.FLOAT, self._sizes(y))
        graph = helper.make_graph(self._nodes, "small", [inputs], [outputs], self._weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR)

    def _sizes(self, name: str) -> list[str | int]:
        channels, side = self.shapes[name]
        return ["batch", channels, side, side] if side else ["batch", channels]

    def _add(self, operator: str, inputs: list[str], shape: tuple[int, int], **attributes: Any) -> str:  # noqa: ANN401
        self._count += 1
        name = f"{operator.lower()}_{self._count}"
        self._nodes.append(helper.make_node(operator, inputs, [f"{name}_out"], name=name, **attributes))
        self.shapes[f"{name}_out"] = shape
        return f"{name}_out"

    def _weight(self, *sizes: int) -> str:
        name = f"weight_{len(self._weights)}"
        self._weights.append(TensorProto(name=name, dims=sizes, data_type=TensorProto.FLOAT))
        return name

    def _constant(self, array: Any) -> str:  # noqa: ANN401  # an array or a number of NumPy
        name = f"weight_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name


def fill(model: ModelProto, seed: int) -> None:
    """Give the weights that are still empty random numbers of a size that keeps answers finite."""
    rng = np.random.default_rng([seed, 2])
    for tensor in model.graph.initializer:
        if not tensor.HasField("raw_data"):
            sizes = tuple(tensor.dims)
            spread = np.float32(1.0 / np.sqrt(max(1, int(np.prod(sizes[1:])))))
            tensor.raw_data = (rng.standard_normal(sizes, np.float32) * spread).tobytes()
