"""The service `inference.GRPCInferenceService`: every method of the Open Inference Protocol in one table."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import grpc
from google.protobuf.message import Message

from protos import grpc_service_pb2 as pb
from server.errors import Unimplemented
from server.inference.model_metadata import model_config, model_metadata, model_statistics
from server.inference.pipeline import InferPipeline
from server.inference.repository_control import RepositoryControl
from server.inference.shared_memory_control import CudaSharedMemoryControl, SystemSharedMemoryControl
from server.inference.stream import StreamedInference
from server.lifecycle import Lifecycle
from server.models.table import ModelTable
from server.transport.ordered_stream import DEFAULT_IN_FLIGHT, OrderedStream
from server.transport.rpc import (
    Caller,
    MethodHandler,
    UnaryHandler,
    bidirectional,
    generic_handler,
    parsing,
    unary,
)
from server.wire.request_parser import SplitRequest
from server.wire.shared_regions import SharedRegions

SERVICE_NAME = "inference.GRPCInferenceService"
SERVER_NAME = "boulton"

# Exactly what works: clients of the Triton family believe this list and fail on what is promised and missing.
_EXTENSIONS = (
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "statistics",
)


class InferenceService:
    """Answers the protocol's methods.

    Args:
        models: the loaded models.
        lifecycle: whether the server is ready and accepting.
        pipeline: answers inferences.
        regions: shared memory, as far as the operator has enabled it.
        in_flight: how many requests of one stream are in work at once.

    `streamed` answers the requests of streams one by one.
    """

    def __init__(
        self,
        models: ModelTable,
        lifecycle: Lifecycle,
        pipeline: InferPipeline,
        regions: SharedRegions,
        in_flight: int = DEFAULT_IN_FLIGHT,
    ) -> None:
        self._models = models
        self._lifecycle = lifecycle
        self._pipeline = pipeline
        self._regions = regions
        self.streamed = StreamedInference(pipeline)
        self._stream = OrderedStream(self.streamed, in_flight)

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        """The service's methods, for `Server.add_generic_rpc_handlers`."""
        return generic_handler(SERVICE_NAME, self.methods())

    def methods(self) -> dict[str, MethodHandler]:
        """Every method by its name."""
        calls = {name: unary(answer) for name, answer in self.unary_methods().items()}
        return {**calls, "ModelStreamInfer": bidirectional(self._stream.answer)}

    def unary_methods(self) -> dict[str, UnaryHandler]:
        """Every method with one request and one answer."""
        return {
            "ModelInfer": self._infer,
            **self._health_methods(),
            **self._model_methods(),
            **self._repository_methods(),
            **self._shared_memory_methods(),
            "TraceSetting": parsing(pb.TraceSettingRequest, _no_tracing),
            "LogSettings": parsing(pb.LogSettingsRequest, _no_log_settings),
        }

    def _health_methods(self) -> dict[str, UnaryHandler]:
        return {
            "ServerLive": parsing(pb.ServerLiveRequest, self._server_live),
            "ServerReady": parsing(pb.ServerReadyRequest, self._server_ready),
            "ModelReady": parsing(pb.ModelReadyRequest, self._model_ready),
            "ServerMetadata": parsing(pb.ServerMetadataRequest, self._server_metadata),
        }

    def _model_methods(self) -> dict[str, UnaryHandler]:
        return {
            "ModelMetadata": parsing(pb.ModelMetadataRequest, self._model_metadata),
            "ModelConfig": parsing(pb.ModelConfigRequest, self._model_config),
            "ModelStatistics": parsing(pb.ModelStatisticsRequest, self._model_statistics),
        }

    def _repository_methods(self) -> dict[str, UnaryHandler]:
        control = RepositoryControl(self._models, self._lifecycle)
        return {
            "RepositoryIndex": parsing(pb.RepositoryIndexRequest, control.index),
            "RepositoryModelLoad": parsing(pb.RepositoryModelLoadRequest, control.load),
            "RepositoryModelUnload": parsing(pb.RepositoryModelUnloadRequest, control.unload),
        }

    def _shared_memory_methods(self) -> dict[str, UnaryHandler]:
        system = SystemSharedMemoryControl(self._regions)
        cuda = CudaSharedMemoryControl(self._regions)
        return {
            "SystemSharedMemoryStatus": parsing(pb.SystemSharedMemoryStatusRequest, system.status),
            "SystemSharedMemoryRegister": parsing(pb.SystemSharedMemoryRegisterRequest, system.register),
            "SystemSharedMemoryUnregister": parsing(
                pb.SystemSharedMemoryUnregisterRequest, system.unregister
            ),
            "CudaSharedMemoryStatus": parsing(pb.CudaSharedMemoryStatusRequest, cuda.status),
            "CudaSharedMemoryRegister": parsing(pb.CudaSharedMemoryRegisterRequest, cuda.register),
            "CudaSharedMemoryUnregister": parsing(pb.CudaSharedMemoryUnregisterRequest, cuda.unregister),
        }

    async def _infer(self, message: bytes, caller: Caller) -> bytes:
        return await self._pipeline.infer(self._pipeline.parse(message), caller.time_remaining())

    async def infer_split(self, split: SplitRequest, caller: Caller) -> bytes:
        """Answer a ModelInfer that was taken apart elsewhere."""
        return await self._pipeline.infer(self._pipeline.resolve(split), caller.time_remaining())

    async def _server_live(self, _request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def _server_ready(self, _request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._lifecycle.ready)

    async def _model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        return pb.ModelReadyResponse(ready=self._models.ready(request.name, request.version))

    async def _server_metadata(self, _request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        shared = [name for name, memory in self._shared_memory_kinds() if memory is not None]
        return pb.ServerMetadataResponse(
            name=SERVER_NAME, version=version("boulton"), extensions=sorted((*_EXTENSIONS, *shared))
        )

    def _shared_memory_kinds(self) -> tuple[tuple[str, object], ...]:
        return ("system_shared_memory", self._regions.system), ("cuda_shared_memory", self._regions.cuda)

    async def _model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        return model_metadata(self._models.get(request.name, request.version).spec)

    async def _model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        return pb.ModelConfigResponse(config=model_config(self._models.get(request.name, request.version)))

    async def _model_statistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        chosen = [self._models.get(request.name, request.version)] if request.name else self._models
        return pb.ModelStatisticsResponse(model_stats=[model_statistics(model) for model in chosen])


async def _no_tracing(_request: pb.TraceSettingRequest) -> Message:
    raise Unimplemented("tracing is not offered")


async def _no_log_settings(_request: pb.LogSettingsRequest) -> Message:
    raise Unimplemented("log settings are not offered over the wire: start the server with --log-format")
