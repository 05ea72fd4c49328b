"""What can be seen of a daemon from outside: whether it answers, and what its metrics say."""

from __future__ import annotations

import re
import urllib.request

import grpc
import numpy as np

from bench.control.programs import Ports
from bench.control.scene import MODEL, VALUES
from optimizer.devices.nvml.failures import name_of
from protos import grpc_service_pb2 as wire
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub

RPC_LIMIT_S = 10.0
_DECISIONS = re.compile(r"^boulton_decisions_total\{[^}]*\} (\S+)$", re.MULTILINE)
_CONTROL = re.compile(r'^boulton_gpu_control\{[^}]*state="(\w+)"\} 1\.0$', re.MULTILINE)


def answers(ports: Ports) -> bool:
    """Whether a request for one image is answered."""
    request = wire.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="x", datatype="FP32", shape=[1, VALUES])
    request.raw_input_contents.append(np.zeros(VALUES, np.float32).tobytes())
    with grpc.insecure_channel(f"127.0.0.1:{ports.grpc}") as channel:
        try:
            GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=RPC_LIMIT_S)
        except grpc.RpcError:
            return False
    return True


def metrics(ports: Ports) -> str:
    """Return the metrics as text. Raises OSError."""
    url = f"http://127.0.0.1:{ports.metrics}/metrics"
    with urllib.request.urlopen(url, timeout=RPC_LIMIT_S) as answer:
        return str(answer.read().decode())


def decisions(text: str) -> int:
    """How many turns the governor has taken, by the metrics."""
    found = _DECISIONS.search(text)
    return 0 if found is None else round(float(found[1]))


def control_state(text: str) -> str:
    """How it stands with the clock, by the metrics."""
    found = _CONTROL.search(text)
    return "unknown" if found is None else found[1]


def counts(text: str, function: str, code: int) -> bool:
    """Whether the metrics count failures of a function with a code."""
    named = "nvmlDeviceGetFieldValues" if function.startswith("field:") else function
    labels = f'function="{named}"', f'code="{name_of(code)}"'
    return any(
        line.startswith("boulton_nvml_failures_total") and all(label in line for label in labels)
        for line in text.splitlines()
    )
