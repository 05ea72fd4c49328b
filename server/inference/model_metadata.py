"""What the server says about a model: metadata, configuration, statistics. Values in, messages out."""

from __future__ import annotations

from protos import grpc_service_pb2 as pb
from protos import model_config_pb2 as config_pb
from server.engines.engine import TensorSpec
from server.models.spec import ModelSpec
from server.models.table import ModelService
from server.scheduling.statistics import BatchStatistics, ModelStatistics, Tally


def model_metadata(spec: ModelSpec) -> pb.ModelMetadataResponse:
    """Names, types and shapes; a batch dimension shows as -1."""
    return pb.ModelMetadataResponse(
        name=spec.name,
        versions=[str(spec.version)],
        platform=spec.platform,
        inputs=[_tensor_metadata(spec, tensor) for tensor in spec.inputs],
        outputs=[_tensor_metadata(spec, tensor) for tensor in spec.outputs],
    )


def _tensor_metadata(spec: ModelSpec, tensor: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=tensor.name, datatype=tensor.datatype, shape=spec.wire_shape(tensor)
    )


def model_config(model: ModelService) -> config_pb.ModelConfig:
    """The configuration in force, batching as it is governed at this moment; dims are without the batch."""
    spec = model.spec
    config = config_pb.ModelConfig(
        name=spec.name,
        platform=spec.platform,
        backend=spec.platform.partition("_")[0],
        max_batch_size=spec.max_batch,
        input=[_input_config(tensor) for tensor in spec.inputs],
        output=[_output_config(spec, tensor) for tensor in spec.outputs],
        instance_group=[config_pb.ModelInstanceGroup(name=f"{spec.name}_0", count=1)],
    )
    config.parameters["precision"].string_value = spec.precision
    config.version_policy.specific.versions.append(spec.version)
    if spec.max_batch:
        config.dynamic_batching.preferred_batch_size.append(model.scheduler.batch_limit)
        config.dynamic_batching.max_queue_delay_microseconds = round(model.scheduler.max_delay_s * 1e6)
    return config


def _input_config(tensor: TensorSpec) -> config_pb.ModelInput:
    return config_pb.ModelInput(name=tensor.name, data_type=_config_type(tensor), dims=tensor.shape)


def _output_config(spec: ModelSpec, tensor: TensorSpec) -> config_pb.ModelOutput:
    return config_pb.ModelOutput(
        name=tensor.name,
        data_type=_config_type(tensor),
        dims=tensor.shape,
        label_filename="labels.txt" if spec.labels else "",
    )


def _config_type(tensor: TensorSpec) -> config_pb.DataType.ValueType:
    return config_pb.DataType.Value(f"TYPE_{tensor.datatype}")


def model_statistics(model: ModelService) -> pb.ModelStatistics:
    """Counters since the model was loaded."""
    counters = model.scheduler.statistics
    return pb.ModelStatistics(
        name=model.spec.name,
        version=str(model.spec.version),
        last_inference=counters.last_inference_ms,
        inference_count=counters.inference_count,
        execution_count=counters.execution_count,
        inference_stats=_infer_statistics(counters),
        batch_stats=[
            _batch_statistics(size, counters.batch_stats[size]) for size in sorted(counters.batch_stats)
        ],
    )


def _infer_statistics(counters: ModelStatistics) -> pb.InferStatistics:
    return pb.InferStatistics(
        success=_duration(counters.success),
        fail=_duration(counters.fail),
        queue=_duration(counters.queue),
        compute_input=_duration(counters.compute_input),
        compute_infer=_duration(counters.compute_infer),
        compute_output=_duration(counters.compute_output),
    )


def _batch_statistics(size: int, counters: BatchStatistics) -> pb.InferBatchStatistics:
    return pb.InferBatchStatistics(
        batch_size=size,
        compute_input=_duration(counters.compute_input),
        compute_infer=_duration(counters.compute_infer),
        compute_output=_duration(counters.compute_output),
    )


def _duration(tally: Tally) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=tally.count, ns=tally.ns)
