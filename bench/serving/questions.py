"""What a server tells about itself: what it executed, what its input is called."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from protos import grpc_service_pb2 as wire
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub


@dataclass(frozen=True, slots=True)
class Executed:
    """Cumulative counts of one model."""

    images: int
    batches: int

    def since(self, earlier: Executed) -> Executed:
        """What was executed between two readings."""
        return Executed(self.images - earlier.images, self.batches - earlier.batches)

    @property
    def mean_batch(self) -> float:
        """Images per batch; 0 when nothing was executed."""
        return self.images / self.batches if self.batches else 0.0


def read_executed(url: str, model: str) -> Executed:
    """Ask the server at `url`. Raises grpc.RpcError."""
    with grpc.insecure_channel(url) as channel:
        stub = GRPCInferenceServiceStub(channel)
        (found,) = stub.ModelStatistics(wire.ModelStatisticsRequest(name=model)).model_stats
    return Executed(found.inference_count, found.execution_count)


def first_input(url: str, model: str) -> str:
    """Return the name of the model's first input. Raises grpc.RpcError."""
    with grpc.insecure_channel(url) as channel:
        answer = GRPCInferenceServiceStub(channel).ModelMetadata(wire.ModelMetadataRequest(name=model))
    return str(answer.inputs[0].name)
