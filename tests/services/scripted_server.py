"""A server of the Open Inference Protocol that answers as a test tells it to; it computes nothing.

It runs in a thread of its own, so that programs that block may be pointed at it. Alone, too:
`python tests/services/scripted_server.py`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.shared_memory import SharedMemory

import grpc

from protos import grpc_service_pb2 as pb

Failure = tuple[grpc.StatusCode, str]


@dataclass
class Script:
    """What the server says and does, and what it saw.

    Args:
        inputs: name, datatype and shape of one item, for each input of the model `net`.
        max_batch: 0: no batch dimension.
        fail: asked for each ModelInfer with its number, from 0; None: answer it.
        held: ModelInfer waits while this is clear.
        token: refuse calls without this token.
    """

    inputs: tuple[tuple[str, str, tuple[int, ...]], ...] = (("image", "UINT8", (4, 4, 3)),)
    max_batch: int = 16
    has_config: bool = True
    fail: Callable[[int], Failure | None] = lambda number: None
    held: threading.Event = field(default_factory=threading.Event)
    token: str | None = None
    messages: list[bytes] = field(default_factory=list)
    regions: dict[str, tuple[str, int]] = field(default_factory=dict)
    ever_registered: list[str] = field(default_factory=list)
    shared: list[bytes] = field(default_factory=list)
    timeouts_s: list[float | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.held.set()

    @property
    def requests(self) -> list[pb.ModelInferRequest]:
        return [pb.ModelInferRequest.FromString(message) for message in self.messages]


class Servicer:
    def __init__(self, script: Script) -> None:
        self.script = script

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: grpc.aio.ServicerContext):  # noqa: N802, ANN201
        await self._check(context)
        if request.name != "net":
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}'")
        answer = pb.ModelMetadataResponse(name="net", versions=["1"], platform="scripted")
        for name, datatype, shape in self.script.inputs:
            full = [-1, *shape] if self.script.max_batch else shape
            answer.inputs.add(name=name, datatype=datatype, shape=full)
        answer.outputs.add(name="scores", datatype="FP32", shape=[-1, 3] if self.script.max_batch else [3])
        return answer

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: grpc.aio.ServicerContext):  # noqa: N802, ANN201
        if not self.script.has_config:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no ModelConfig here")
        answer = pb.ModelConfigResponse()
        answer.config.max_batch_size = self.script.max_batch
        return answer

    async def SystemSharedMemoryRegister(self, request, context):  # noqa: N802, ANN001, ANN201
        self.script.regions[request.name] = (request.key, request.byte_size)
        self.script.ever_registered.append(request.name)
        return pb.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryUnregister(self, request, context):  # noqa: N802, ANN001, ANN201
        del self.script.regions[request.name]
        return pb.SystemSharedMemoryUnregisterResponse()

    async def infer(self, message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await self._check(context)
        script = self.script
        number = len(script.messages)
        script.messages.append(message)
        script.timeouts_s.append(context.time_remaining())
        self._read_shared(message)
        if not script.held.is_set():
            await asyncio.to_thread(script.held.wait)
        failure = script.fail(number)
        if failure is not None:
            await context.abort(*failure)
        return pb.ModelInferResponse(model_name="net").SerializeToString()

    def _read_shared(self, message: bytes) -> None:
        if not self.script.regions:
            return
        for tensor in pb.ModelInferRequest.FromString(message).inputs:
            key, _ = self.script.regions[tensor.parameters["shared_memory_region"].string_param]
            start = tensor.parameters["shared_memory_offset"].int64_param
            size = tensor.parameters["shared_memory_byte_size"].int64_param
            memory = SharedMemory(key.lstrip("/"))
            self.script.shared.append(bytes(memory.buf[start : start + size]))
            memory.close()

    async def _check(self, context: grpc.aio.ServicerContext) -> None:
        wanted = self.script.token
        if wanted and dict(context.invocation_metadata()).get("authorization") != f"Bearer {wanted}":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "this server needs a token")


def handler_of(servicer: Servicer) -> grpc.GenericRpcHandler:
    """ModelInfer as bytes, the rest as messages."""
    methods = {"ModelInfer": grpc.unary_unary_rpc_method_handler(servicer.infer)}
    for name in (
        "ModelMetadata",
        "ModelConfig",
        "SystemSharedMemoryRegister",
        "SystemSharedMemoryUnregister",
    ):
        methods[name] = grpc.unary_unary_rpc_method_handler(
            getattr(servicer, name),
            request_deserializer=getattr(pb, f"{name}Request").FromString,
            response_serializer=getattr(pb, f"{name}Response").SerializeToString,
        )
    return grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods)


class ScriptedServer:
    """The server in its thread."""

    def __init__(self, script: Script, credentials: grpc.ServerCredentials | None = None) -> None:
        self._script = script
        self._credentials = credentials
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self.address = ""

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(30)

    def stop(self) -> None:
        self._script.held.set()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((handler_of(Servicer(self._script)),))
        where = "127.0.0.1:0"
        port = (
            server.add_insecure_port(where)
            if self._credentials is None
            else server.add_secure_port(where, self._credentials)
        )
        self.address = f"127.0.0.1:{port}"
        await server.start()
        self._started.set()
        await self._stop.wait()
        await server.stop(0)


@contextmanager
def serving(script: Script, credentials: grpc.ServerCredentials | None = None) -> Iterator[str]:
    """Serve until the block ends; gives the address."""
    server = ScriptedServer(script, credentials)
    server.start()
    try:
        yield server.address
    finally:
        server.stop()


if __name__ == "__main__":
    with serving(Script()) as address:
        print(address, flush=True)
        threading.Event().wait()
