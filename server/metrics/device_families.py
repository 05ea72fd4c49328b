"""What runs the networks, as Prometheus families: whether its clock is set, and what NVML refused."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from server.devices.served import ControlState
from server.metrics.values import DeviceMetrics


def device_families(device: DeviceMetrics) -> Iterator[Metric]:
    """Everything about the device that does not depend on a governor."""
    yield _control(device)
    failures = CounterMetricFamily(
        "boulton_nvml_failures", "Calls of NVML that failed", labels=("gpu_uuid", "function", "code")
    )
    for (function, code), count in sorted(device.failures.items()):
        failures.add_metric([device.gpu_uuid, function, code], count)
    yield failures


def _control(device: DeviceMetrics) -> Metric:
    """One sample a state: 1 for the one in force, so that alerts can name the state they mean."""
    text = "1 for how it stands with setting the GPU's clock, 0 for every other state"
    family = GaugeMetricFamily("boulton_gpu_control", text, labels=("gpu_uuid", "state"))
    for state in ControlState:
        family.add_metric([device.gpu_uuid, state.value], float(state is device.control))
    return family
