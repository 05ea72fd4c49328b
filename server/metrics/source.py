"""Where metrics read: the loaded models and the governor at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from server.devices.served import ServedDevice, control_state
from server.front_ends.front_ends import FrontEnds
from server.governing.loop import Governing
from server.metrics.endpoint import DeviceMetrics, FrontEndMetrics, GovernorMetrics, ModelMetrics
from server.models.table import ModelTable


class ServerMetrics:
    """Implements `MetricsSource`. Called in another thread: reads counters as they stand, changes nothing.

    Args:
        models: the loaded models.
        device: what runs them.
        governing: finds the governor at work; None when nothing is governed.
        front_ends: finds the front ends; None where there are none.
    """

    def __init__(
        self,
        models: ModelTable,
        device: ServedDevice,
        governing: Callable[[], Governing | None],
        front_ends: Callable[[], FrontEnds | None],
    ) -> None:
        self._models = models
        self._device = device
        self._governing = governing
        self._front_ends = front_ends

    def models(self) -> Iterator[ModelMetrics]:
        """Return every loaded model."""
        for snapshot in self._models.snapshots():
            yield ModelMetrics(
                name=snapshot.name,
                version=snapshot.version,
                statistics=snapshot.statistics,
                pending_requests=snapshot.queued_requests,
                queued_images=snapshot.queued_images,
                batch_limit=snapshot.batch_limit,
                gpu_uuid=self._device.gpu.uuid,
                padded_images=snapshot.padded_images,
                on_gpu=self._device.is_gpu,
            )

    def governor(self) -> GovernorMetrics | None:
        """Return the governor; None when nothing is governed."""
        governing = self._governing()
        if governing is None:
            return None
        return GovernorMetrics(
            gpu_uuid=governing.device.uuid,
            model=governing.model,
            policy=governing.governor.policy.name,
            target=governing.governor.point,
            totals=governing.totals.value,
            last=governing.last,
            paused=governing.governor.paused,
            pinned=governing.governor.pinned is not None,
            alarms=governing.alarms,
            cpu_s=governing.cpu_s,
            saving=governing.governor.holdback.saving if governing.governor.holdback else None,
        )

    def device(self) -> DeviceMetrics:
        """Return what runs the models."""
        governing = self._governing()
        state = control_state(self._device, governing.governor if governing else None)
        return DeviceMetrics(self._device.gpu.uuid, state, self._device.failures())

    def front_ends(self) -> FrontEndMetrics | None:
        """Return the front ends; None where the daemon speaks gRPC for itself."""
        front_ends = self._front_ends()
        return None if front_ends is None else FrontEndMetrics(front_ends.running, front_ends.restarts)
