"""Small real models, a repository of them, and the inference service over a real socket.

Runs alone, too: `python tests/services/tiny_server.py` serves the models until it is interrupted.
"""

from __future__ import annotations

import asyncio
import io
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from protos import grpc_service_pb2 as pb
from protos import grpc_service_pb2_grpc as pb_grpc
from server.engines.engine import Array, Engine
from server.engines.onnxruntime import load_onnxruntime_engine
from server.front_ends.front_ends import FrontEnds
from server.inference.inputs import ImageDecoder, InputReader
from server.inference.pipeline import InferPipeline
from server.inference.service import InferenceService
from server.lifecycle import Lifecycle, Phase
from server.models.repository import ModelEntry, Repository
from server.models.table import ModelTable
from server.scheduling.scheduler import SchedulerSettings
from server.transport.grpc_server import PortSettings
from server.wire.cuda_shared_memory import CudaSharedMemory
from server.wire.shared_memory import SystemSharedMemory
from server.wire.shared_regions import SharedRegions


def tensor(name: str, datatype: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, datatype, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    initializers: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(proto)
    return proto


def colour_model(scale: float = 1.0) -> onnx.ModelProto:
    """`image` UINT8 [n,4,4,3] to `scores` FP32 [n,3]: the mean of each channel, times `scale`."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["means"], keepdims=0),
        helper.make_node("Mul", ["means", "scale"], ["scores"]),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]),
    ]
    image = tensor("image", TensorProto.UINT8, "batch", 4, 4, 3)
    return model(nodes, [image], [tensor("scores", TensorProto.FLOAT, "batch", 3)], constants)


def pair_model(size: int = 4) -> onnx.ModelProto:
    """`a`, `b` FP32 [n,size] to `sum` and `difference` FP32 [n,size]."""
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Sub", ["a", "b"], ["difference"]),
    ]
    shape = ("batch", size)
    inputs = [tensor(name, TensorProto.FLOAT, *shape) for name in ("a", "b")]
    return model(nodes, inputs, [tensor(name, TensorProto.FLOAT, *shape) for name in ("sum", "difference")])


def whole_model() -> onnx.ModelProto:
    """`x` FP32 [2,3] to `y` = x + x; no batch dimension."""
    node = helper.make_node("Add", ["x", "x"], ["y"])
    return model([node], [tensor("x", TensorProto.FLOAT, 2, 3)], [tensor("y", TensorProto.FLOAT, 2, 3)])


def typed_model(datatype: int) -> onnx.ModelProto:
    """`x` [n,2] to `y` = x, of any datatype."""
    shape = ("batch", 2)
    node = helper.make_node("Concat", ["x"], ["y"], axis=1)
    return model([node], [tensor("x", datatype, *shape)], [tensor("y", datatype, *shape)])


class GateEngine:
    """A real engine that runs a batch only while its gate is open; records what ran."""

    def __init__(self, engine: Engine, gate: threading.Event) -> None:
        self._engine = engine
        self._gate = gate
        self.running = threading.Event()
        self.batches: list[int] = []
        self.closed = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def run(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        self.running.set()
        self.batches.append(len(inputs[0]))
        assert self._gate.wait(30)
        return self._engine.run(inputs)

    def close(self) -> None:
        self.closed = True
        self._engine.close()


@dataclass
class Gate:
    """Controls the models whose names start with `gate`."""

    open: threading.Event = field(default_factory=threading.Event)
    engines: list[GateEngine] = field(default_factory=list)

    def make_engine(self, entry: ModelEntry) -> Engine:
        engine = load_onnxruntime_engine(entry.onnx_path, max_batch=entry.max_batch, threads=1)
        if not entry.name.startswith("gate"):
            return engine
        self.engines.append(GateEngine(engine, self.open))
        return self.engines[-1]


@dataclass
class Served:
    """A server with its parts, and a client of it."""

    stub: pb_grpc.GRPCInferenceServiceStub
    channel: grpc.aio.Channel
    server: OwnProcess | FrontEnds
    models: ModelTable
    lifecycle: Lifecycle
    gate: Gate
    address: str
    root: Path


def put_model(
    root: Path, name: str, version: int, proto: onnx.ModelProto | bytes, *, config: str = "", labels: str = ""
) -> None:
    directory = root / name / str(version)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.onnx").write_bytes(proto if isinstance(proto, bytes) else proto.SerializeToString())
    if config:
        (root / name / "config.toml").write_text(config)
    if labels:
        (root / name / "labels.txt").write_text(labels)


def make_repository(root: Path) -> Path:
    """colour (labels, images, two versions), pair, whole (no batch dimension), gate (waits for the gate)."""
    image = 'max_batch_size = 16\n[image]\ninput = "image"\n'
    put_model(root, "colour", 1, colour_model(), config=image, labels="red\ngreen\nblue\n")
    put_model(root, "colour", 2, colour_model())
    put_model(root, "pair", 1, pair_model(), config="max_batch_size = 8\n")
    put_model(root, "whole", 7, whole_model())
    put_model(root, "gate", 1, typed_model(TensorProto.FLOAT), config="max_batch_size = 4\n")
    return root


class OwnProcess:
    """The service alone, without health and reflection, in this process."""

    def __init__(self, service: InferenceService, options: tuple[tuple[str, int], ...]) -> None:
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers((service.handler(),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.start, self.stop = self._server.start, self._server.stop
        self.wait_for_termination = self._server.wait_for_termination


def listen(
    service: InferenceService, options: tuple[tuple[str, int], ...], front_ends: int
) -> OwnProcess | FrontEnds:
    if not front_ends:
        return OwnProcess(service, options)
    limit = dict(options).get("grpc.max_receive_message_length", 4 << 20)
    port = PortSettings("127.0.0.1", 0, "--host and --port", limit)
    return FrontEnds(port, ("text", "info"), front_ends, service)


@asynccontextmanager
async def start_server(
    root: Path,
    *,
    models: tuple[str, ...] = ("colour", "pair", "whole", "gate"),
    shared_memory: bool = True,
    cuda_memory: CudaSharedMemory | None = None,
    make_engine: Callable[[ModelEntry], Engine] | None = None,
    batch_limit: int = 4,
    max_queue_images: int = 4096,
    options: tuple[tuple[str, int], ...] = (),
    decoder: ImageDecoder | None = None,
    in_flight: int = 8,
    drain_timeout_s: float = 10.0,
    front_ends: int = 0,
) -> AsyncIterator[Served]:
    gate, lifecycle = Gate(), Lifecycle()
    settings = SchedulerSettings(batch_limit, max_queue_images=max_queue_images)
    table = ModelTable(
        Repository(root), make_engine or gate.make_engine, settings, drain_timeout_s=drain_timeout_s
    )
    regions = SharedRegions(SystemSharedMemory() if shared_memory else None, cuda_memory)
    decoder = decoder or ImageDecoder()
    pipeline = InferPipeline(table, lifecycle, InputReader(regions, decoder), regions)
    service = InferenceService(table, lifecycle, pipeline, regions, in_flight)
    server = listen(service, options, front_ends)
    for name in models:
        await table.load(name)
    lifecycle.phase = Phase.SERVING
    await server.start()
    address = f"127.0.0.1:{server.port}"
    unlimited = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
    async with grpc.aio.insecure_channel(address, options=unlimited) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        yield Served(stub, channel, server, table, lifecycle, gate, address, root)
    gate.open.set()
    await server.stop(0)
    await table.close(drain_timeout_s)
    decoder.close()
    regions.close()


ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
}

# Which field of InferTensorContents holds a datatype; FP16 has none.
CONTENTS_FIELDS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}

DATATYPES = {
    "b1": "BOOL",
    "u1": "UINT8",
    "u2": "UINT16",
    "u4": "UINT32",
    "u8": "UINT64",
    "i1": "INT8",
    "i2": "INT16",
    "i4": "INT32",
    "i8": "INT64",
    "f2": "FP16",
    "f4": "FP32",
    "f8": "FP64",
}


def infer_request(
    name: str, /, *, version: str = "", request_id: str = "", **arrays: np.ndarray
) -> pb.ModelInferRequest:
    """Build a request with raw contents: `infer_request("pair", a=array, b=array)`."""
    request = pb.ModelInferRequest(model_name=name, model_version=version, id=request_id)
    for tensor_name, array in arrays.items():
        request.inputs.add(name=tensor_name, datatype=DATATYPES[array.dtype.str[1:]], shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request


def typed_values() -> dict[str, np.ndarray]:
    """[2,2] values of every datatype, the extremes included."""
    values = {"BOOL": np.array([[True, False], [False, True]])}
    for code, name in DATATYPES.items():
        if code[0] in "ui":
            limits = np.iinfo(code)
            values[name] = np.array([[limits.min, limits.max], [1, 2]], f"<{code}")
        elif code[0] == "f":
            values[name] = np.array([[-1.5, np.finfo(code).max], [0, 0.25]], f"<{code}")
    return values


def typed_request(name: str, values: np.ndarray) -> pb.ModelInferRequest:
    """Build a request with typed contents for `typed_model`."""
    datatype = DATATYPES[values.dtype.str[1:]]
    request = pb.ModelInferRequest(model_name=name)
    tensor = request.inputs.add(name="x", datatype=datatype, shape=values.shape)
    getattr(tensor.contents, CONTENTS_FIELDS[datatype]).extend(values.ravel().tolist())
    return request


def picture(colour: tuple[int, int, int], form: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 6), colour).save(buffer, form)
    return buffer.getvalue()


def bytes_tensor(*elements: bytes) -> bytes:
    """The raw content of a BYTES tensor."""
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that announces itself by no event."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def serve_until_interrupted() -> None:
    with tempfile.TemporaryDirectory() as root:
        async with start_server(make_repository(Path(root))) as served:
            served.gate.open.set()
            print(served.address, flush=True)
            await served.server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve_until_interrupted())
