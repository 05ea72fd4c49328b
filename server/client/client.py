"""A small client for servers that speak the Open Inference Protocol: ask about a model, classify."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import grpc
import numpy as np

from protos import grpc_service_pb2 as pb
from protos import grpc_service_pb2_grpc as pb_grpc
from server.client.endpoint import UNLIMITED, Endpoint, ServerRefused, explain
from server.engines.engine import NUMPY_DTYPES
from server.wire.tensors import unpack_bytes

T = TypeVar("T")

# Assumed of servers that do not tell a model's largest batch.
UNTOLD_MAX_BATCH = 32


@dataclass(frozen=True, slots=True)
class RemoteTensor:
    """One input or output as the server describes it; `shape` is of one item, -1 where it varies."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model as its server describes it. `max_batch` is 0 when there is no batch dimension."""

    name: str
    platform: str
    max_batch: int
    inputs: tuple[RemoteTensor, ...]
    outputs: tuple[RemoteTensor, ...]

    @property
    def only_input(self) -> RemoteTensor:
        """The input, if there is exactly one. Raises `ServerRefused` otherwise."""
        if len(self.inputs) != 1:
            names = ", ".join(tensor.name for tensor in self.inputs)
            raise ServerRefused(
                f"model '{self.name}' has several inputs ({names}); one picture cannot fill them"
            )
        return self.inputs[0]


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class of an answer. `label` is empty when the server has none."""

    score: float
    index: int
    label: str


@dataclass(frozen=True, slots=True)
class Classification:
    """The answer to one request: for each image its best classes, the best first."""

    images: tuple[tuple[ClassScore, ...], ...]
    model_version: str


class OipClient:
    """One connection. Every failed call raises `ServerUnreachable` or `ServerRefused`.

    Args:
        endpoint: the server.
        timeout_s: for each call.
    """

    def __init__(self, endpoint: Endpoint, timeout_s: float = 30.0) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        credentials = endpoint.credentials
        self._channel = (
            grpc.insecure_channel(endpoint.target, options=UNLIMITED)
            if credentials is None
            else grpc.secure_channel(endpoint.target, credentials, options=UNLIMITED)
        )
        self._stub = pb_grpc.GRPCInferenceServiceStub(self._channel)

    def __enter__(self) -> OipClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def ready_models(self) -> tuple[str, ...]:
        """Names of the models that are ready, sorted."""
        answer = self._call(self._stub.RepositoryIndex, pb.RepositoryIndexRequest(ready=True))
        return tuple(sorted({model.name for model in answer.models if model.state in ("READY", "")}))

    def model(self, name: str) -> RemoteModel:
        """Ask what a model takes and gives."""
        metadata = self._call(self._stub.ModelMetadata, pb.ModelMetadataRequest(name=name))
        max_batch = self._max_batch(metadata)
        return RemoteModel(
            name=name,
            platform=metadata.platform,
            max_batch=max_batch,
            inputs=tuple(_tensor(tensor, max_batch) for tensor in metadata.inputs),
            outputs=tuple(_tensor(tensor, max_batch) for tensor in metadata.outputs),
        )

    def classify(self, request: pb.ModelInferRequest, images: int) -> Classification:
        """Send a request made by `classification_request`; read the classes of its `images` pictures."""
        response = self._call(self._stub.ModelInfer, request)
        k = request.outputs[0].parameters["classification"].int64_param
        return Classification(_scores(response, images, k), response.model_version)

    def register_shared_memory(self, region: str, key: str, byte_size: int) -> None:
        """Give the server's view of a POSIX shared memory object a name."""
        request = pb.SystemSharedMemoryRegisterRequest(name=region, key=key, byte_size=byte_size)
        self._call(self._stub.SystemSharedMemoryRegister, request)

    def unregister_shared_memory(self, region: str) -> None:
        """Let the server forget a region."""
        self._call(
            self._stub.SystemSharedMemoryUnregister, pb.SystemSharedMemoryUnregisterRequest(name=region)
        )

    def _max_batch(self, metadata: pb.ModelMetadataResponse) -> int:
        try:
            answer = self._stub.ModelConfig(
                pb.ModelConfigRequest(name=metadata.name),
                timeout=self._timeout_s,
                metadata=self._endpoint.metadata,
            )
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise explain(error, self._endpoint) from error
            leads = [tensor.shape[0] if tensor.shape else 0 for tensor in metadata.inputs]
            return UNTOLD_MAX_BATCH if leads and set(leads) == {-1} else 0
        return int(answer.config.max_batch_size)

    def _call(self, method: Callable[..., Any], request: object) -> Any:  # noqa: ANN401 - each its own message
        try:
            return method(request, timeout=self._timeout_s, metadata=self._endpoint.metadata)
        except grpc.RpcError as error:
            raise explain(error, self._endpoint) from error


def classification_request(
    model: RemoteModel, output: RemoteTensor, datatype: str, shape: Sequence[int], raw: bytes, k: int
) -> pb.ModelInferRequest:
    """Ask for the best `k` classes of an output; `raw` fills the model's only input."""
    request = pb.ModelInferRequest(model_name=model.name)
    request.inputs.add(name=model.only_input.name, datatype=datatype, shape=shape)
    request.outputs.add(name=output.name).parameters["classification"].int64_param = k
    request.raw_input_contents.append(raw)
    return request


def _tensor(tensor: pb.ModelMetadataResponse.TensorMetadata, max_batch: int) -> RemoteTensor:
    shape = tuple(tensor.shape)
    return RemoteTensor(tensor.name, tensor.datatype, shape[1:] if max_batch else shape)


def _scores(response: pb.ModelInferResponse, images: int, k: int) -> tuple[tuple[ClassScore, ...], ...]:
    output, raw = response.outputs[0], response.raw_output_contents[0]
    if output.datatype == "BYTES":
        elements = unpack_bytes(memoryview(raw), math.prod(output.shape))
        found = [_parse(bytes(element).decode("utf-8", "replace")) for element in elements]
        each = len(found) // images
        return tuple(tuple(found[row * each : (row + 1) * each]) for row in range(images))
    scores = np.frombuffer(raw, NUMPY_DTYPES[output.datatype]).reshape(images, -1)
    return tuple(_best(row.astype(np.float64), k) for row in scores)  # a server that does not classify


def _best(scores: np.ndarray[Any, np.dtype[np.float64]], k: int) -> tuple[ClassScore, ...]:
    order = np.argsort(-scores, kind="stable")[:k]
    return tuple(ClassScore(float(scores[index]), int(index), "") for index in order)


def _parse(text: str) -> ClassScore:
    """Read `value:index[:label]`."""
    value, _, rest = text.partition(":")
    index, _, label = rest.partition(":")
    try:
        return ClassScore(float(value), int(index), label)
    except ValueError:
        raise ServerRefused(
            f"expected classes as value:index[:label], the server answered {text!r}"
        ) from None
