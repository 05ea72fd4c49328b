"""From snapshots to Prometheus families. Pure: values in, families out.

Names and labels are Triton's (`nv_...`) where the meaning is the same, so that its dashboards work. Triton's
counters lack the suffix `_total` that a Prometheus client library insists on; they are declared untyped,
which leaves the names as they are and hinders no query. Like Triton's, they carry the GPU's UUID where a GPU
runs the model, a simulated one included, and no such label on the CPU; Boulton's own name the device in any
case. What nothing measured has no sample, never a 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    UnknownMetricFamily,
)

from optimizer.holdback import Interval, Saving
from optimizer.revenue import FORM_UNITS
from optimizer.telemetry import EnergySource
from server.metrics.values import FrontEndMetrics, GovernorMetrics, ModelMetrics
from server.scheduling.statistics import ModelStatistics

_SECONDS_PER_HOUR = 3600.0
_MODEL_LABELS = ("model", "version", "gpu_uuid")
_GOVERNED = ("gpu_uuid", "model")
_GPU_SOURCE = ("gpu_uuid", "source")

# What Triton's names mean is a GPU; energy of a CPU package goes under Boulton's names alone.
_NOT_A_GPU = frozenset({EnergySource.RAPL, EnergySource.NOT_MEASURED})

_MODEL_COUNTERS: tuple[tuple[str, str, Callable[[ModelStatistics], float]], ...] = (
    ("nv_inference_request_success", "Requests answered", lambda s: s.success.count),
    ("nv_inference_count", "Images answered", lambda s: s.inference_count),
    ("nv_inference_exec_count", "Batches that ran", lambda s: s.execution_count),
    (
        "nv_inference_request_duration_us",
        "Time of answered requests, queue included",
        lambda s: _us(s.success.ns),
    ),
    ("nv_inference_queue_duration_us", "Time that requests waited for a batch", lambda s: _us(s.queue.ns)),
    (
        "nv_inference_compute_input_duration_us",
        "Time that requests waited for their inputs to be gathered",
        lambda s: _us(s.compute_input.ns),
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "Time that requests waited for the network",
        lambda s: _us(s.compute_infer.ns),
    ),
    (
        "nv_inference_compute_output_duration_us",
        "Time that requests waited for their outputs to be handed out",
        lambda s: _us(s.compute_output.ns),
    ),
)

_FAILURES: tuple[tuple[str, Callable[[ModelStatistics], float]], ...] = (
    ("REJECTED", lambda s: s.reject_count + s.expired_count),
    ("CANCELED", lambda s: s.cancel_count),
    ("BACKEND", lambda s: max(0, s.fail.count - s.reject_count - s.expired_count)),
)


def model_families(models: Iterable[ModelMetrics]) -> Iterator[Metric]:
    """Everything that each loaded model counts."""
    models = tuple(models)
    for name, text, read in _MODEL_COUNTERS:
        family = UnknownMetricFamily(name, text)
        for model in models:
            family.add_sample(name, _triton_labels(model), read(model.statistics))
        yield family
    yield _failures(models)
    yield _pending(models)
    yield _gauge("boulton_queued_images", "Images that wait for a batch", models, _queued)
    yield _gauge("boulton_batch_limit", "Largest batch in images", models, _batch_limit)
    yield _batch_sizes(models)
    yield _padded(models)


def governor_families(governor: GovernorMetrics) -> Iterator[Metric]:
    """Everything about the governed model and its device."""
    yield from _clocks(governor)
    yield from _money(governor)
    yield from _counters(governor)
    yield from _energy(governor)
    yield _latencies(governor)
    yield from _orders(governor)
    if governor.saving is not None:
        yield from _saving(governor, governor.saving)
    yield InfoMetricFamily(
        "boulton_governor",
        "What is governed, and by which policy",
        value={"gpu_uuid": governor.gpu_uuid, "model": governor.model, "policy": governor.policy},
    )


def front_end_families(front_ends: FrontEndMetrics) -> Iterator[Metric]:
    """The processes that speak gRPC for the daemon."""
    text = "Processes that listen on the clients' port now"
    yield GaugeMetricFamily("boulton_front_ends", text, value=front_ends.running)
    text = "Front ends that ended unasked and were replaced"
    yield CounterMetricFamily("boulton_front_end_restarts", text, value=front_ends.restarts)


def build_family(version: str) -> Metric:
    """Which Boulton this is."""
    return InfoMetricFamily("boulton_build", "The running program", value={"version": version})


def _us(nanoseconds: int) -> float:
    return nanoseconds / 1000


def _labels(model: ModelMetrics) -> list[str]:
    return [model.name, str(model.version), model.gpu_uuid]


def _triton_labels(model: ModelMetrics) -> dict[str, str]:
    labels = dict(zip(_MODEL_LABELS, _labels(model), strict=True))
    return labels if model.on_gpu else {name: labels[name] for name in labels if name != "gpu_uuid"}


def _queued(model: ModelMetrics) -> float:
    return model.queued_images


def _batch_limit(model: ModelMetrics) -> float:
    return model.batch_limit


def _gauge(
    name: str, text: str, models: Iterable[ModelMetrics], read: Callable[[ModelMetrics], float]
) -> Metric:
    family = GaugeMetricFamily(name, text, labels=_MODEL_LABELS)
    for model in models:
        family.add_metric(_labels(model), read(model))
    return family


def _pending(models: Iterable[ModelMetrics]) -> Metric:
    family = GaugeMetricFamily("nv_inference_pending_request_count", "Requests that wait for a batch")
    for model in models:
        family.add_sample(family.name, _triton_labels(model), model.pending_requests)
    return family


def _failures(models: Iterable[ModelMetrics]) -> Metric:
    family = UnknownMetricFamily(
        "nv_inference_request_failure",
        "Requests that failed: REJECTED by the queue or too late, CANCELED by the client, BACKEND: the rest",
    )
    for model in models:
        for reason, read in _FAILURES:
            family.add_sample(
                family.name, {**_triton_labels(model), "reason": reason}, read(model.statistics)
            )
    return family


def _batch_sizes(models: Iterable[ModelMetrics]) -> Metric:
    text = "Images in each batch that ran"
    family = HistogramMetricFamily("boulton_batch_size", text, labels=_MODEL_LABELS)
    for model in models:
        sizes = dict(model.statistics.batch_stats)  # one step, so that a batch ending meanwhile is no trouble
        counts = {size: stats.compute_infer.count for size, stats in sizes.items()}
        total = sum(size * count for size, count in counts.items())
        family.add_metric(_labels(model), _buckets(counts), total)
    return family


def _padded(models: Iterable[ModelMetrics]) -> Metric:
    text = "Rows computed in vain, to fill batches up to a size that the engine runs"
    family = CounterMetricFamily("boulton_padded_images", text, labels=_MODEL_LABELS)
    for model in models:
        family.add_metric(_labels(model), model.padded_images)
    return family


def _buckets(counts: dict[int, int]) -> list[tuple[str, float]]:
    """Cumulative counts at powers of two, up to the first that holds every batch."""
    largest = max(counts, default=1)
    bounds = [1 << power for power in range((largest - 1).bit_length() + 1)]
    buckets: list[tuple[str, float]] = [
        (str(float(bound)), sum(count for size, count in counts.items() if size <= bound)) for bound in bounds
    ]
    return [*buckets, ("+Inf", sum(counts.values()))]


def _clocks(governor: GovernorMetrics) -> Iterator[Metric]:
    reading = governor.last.window.device if governor.last else None
    actual_mhz = reading.sm_clock_mhz if reading else None
    yield _one(governor, "boulton_sm_clock_target_mhz", "SM clock asked for", governor.target.sm_clock_mhz)
    yield _one(governor, "boulton_sm_clock_actual_mhz", "SM clock in force in the last window", actual_mhz)
    not_taken = float(bool(reading.clock_not_taken)) if reading else None
    yield _one(governor, "boulton_clock_not_taken", "1 while another clock is in force", not_taken)
    temperature_c = reading.temperature_c if reading else None
    yield _one(governor, "boulton_gpu_temperature_celsius", "Temperature of the GPU", temperature_c)
    yield _one(
        governor,
        "boulton_batch_limit_target",
        "Batch limit asked for, in images",
        governor.target.batch_limit,
    )


def _money(governor: GovernorMetrics) -> Iterator[Metric]:
    totals, last = governor.totals, governor.last
    revenue = UnknownMetricFamily(  # it may fall, and the suffix is reserved for what cannot
        "boulton_revenue_total", "Income less penalties and measured energy, in currency", labels=_GOVERNED
    )
    revenue.add_metric([governor.gpu_uuid, governor.model], totals.revenue)
    yield revenue
    duration_s = last.window.duration_s if last else 0.0
    in_money = last is not None and last.revenue.form == "profit"
    rate = last.revenue.total / duration_s if last and in_money and duration_s > 0 else None
    yield _one(governor, "boulton_revenue_rate", "Revenue of the last window, in currency per second", rate)
    yield _count(governor, "boulton_income_total", "Currency earned by images in time", totals.income)
    yield _count(governor, "boulton_late_penalty_total", "Currency lost by late images", totals.penalty)
    if totals.energy_j:
        text = "Currency that the measured energy cost"
        yield _count(governor, "boulton_energy_cost_total", text, totals.energy_cost)


def _counters(governor: GovernorMetrics) -> Iterator[Metric]:
    totals = governor.totals
    yield _count(governor, "boulton_decisions_total", "Turns of the governor", totals.decisions)
    yield _count(
        governor, "boulton_governor_cpu_seconds_total", "Processor time of its thread", governor.cpu_s
    )
    yield _count(governor, "boulton_late_images_total", "Images answered after the SLO", totals.late)
    yield _count(governor, "boulton_refused_images_total", "Images turned away", totals.refused)
    yield _count(governor, "boulton_expired_images_total", "Images whose deadline passed", totals.expired)
    yield _count(governor, "boulton_cancelled_images_total", "Images withdrawn", totals.cancelled)


def _orders(governor: GovernorMetrics) -> Iterator[Metric]:
    last = governor.last
    infeasible = float(last.decision.infeasible is not None) if last else None
    yield _one(
        governor, "boulton_governor_paused", "1 while the operator lets nobody decide", governor.paused
    )
    yield _one(governor, "boulton_governor_pinned", "1 while the operator holds a setting", governor.pinned)
    yield _one(governor, "boulton_targets_infeasible", "1 while SLO or cap cannot be kept", infeasible)
    yield _count(governor, "boulton_alarms_total", "Refuges taken before a decision", governor.alarms)
    yield _score(governor)


def _saving(governor: GovernorMetrics, saving: Saving) -> Iterator[Metric]:
    """What was measured against the default setting; the bounds of the 95 % confidence interval beside it."""
    text = "Comparisons of governed windows with the default setting"
    yield _count(governor, "boulton_saving_comparisons_total", text, saving.comparisons + saving.dropped)
    form = governor.last.revenue.form if governor.last else "profit"
    if form in FORM_UNITS:
        name, text, factor = "boulton_saved_score", "Gained over the default setting, an image", 1.0
    else:
        name, text = "boulton_saved_revenue_per_hour", "Gained over the default setting"
        factor = float(_SECONDS_PER_HOUR)
    gained = GaugeMetricFamily(name, text, labels=(*_GOVERNED, "bound"))
    _add_interval(gained, [governor.gpu_uuid, governor.model], saving.revenue_per_s, factor)
    spared = GaugeMetricFamily(
        "boulton_saved_watts", "Spared against the default setting", labels=(*_GOVERNED, "source", "bound")
    )
    _add_interval(spared, [governor.gpu_uuid, governor.model, saving.source.value], saving.power_w, 1.0)
    yield from (gained, spared)


def _add_interval(
    family: GaugeMetricFamily, labels: list[str], interval: Interval | None, factor: float
) -> None:
    if interval is not None:
        for bound in ("mean", "low", "high"):
            family.add_metric([*labels, bound], factor * getattr(interval, bound))


def _score(governor: GovernorMetrics) -> Metric:
    text = "What the last window scored, by the form that is maximised; currency for profit"
    family = GaugeMetricFamily("boulton_score", text, labels=(*_GOVERNED, "form"))
    if governor.last is not None:
        revenue = governor.last.revenue
        family.add_metric([governor.gpu_uuid, governor.model, revenue.form], revenue.total)
    return family


def _energy(governor: GovernorMetrics) -> Iterator[Metric]:
    joules = CounterMetricFamily("boulton_energy_joules_total", "Energy by its source", labels=_GPU_SOURCE)
    gpu_joules = UnknownMetricFamily("nv_energy_consumption", "GPU energy in joules", labels=_GPU_SOURCE)
    for source, total in governor.totals.energy_j.items():
        joules.add_metric([governor.gpu_uuid, source.value], total)
        if source not in _NOT_A_GPU:
            gpu_joules.add_metric([governor.gpu_uuid, source.value], total)
    yield from (joules, gpu_joules)
    yield from _power(governor)


def _power(governor: GovernorMetrics) -> Iterator[Metric]:
    watts = GaugeMetricFamily(
        "boulton_power_watts", "Mean power in the last window, by its source", labels=_GPU_SOURCE
    )
    gpu_watts = GaugeMetricFamily("nv_gpu_power_usage", "GPU power in watts", labels=_GPU_SOURCE)
    reading = governor.last.window.device if governor.last else None
    if reading is not None and reading.power_w is not None:
        source = reading.energy.source
        if source is not EnergySource.NOT_MEASURED:
            watts.add_metric([governor.gpu_uuid, source.value], reading.power_w)
        if source not in _NOT_A_GPU:
            gpu_watts.add_metric([governor.gpu_uuid, source.value], reading.power_w)
    yield from (watts, gpu_watts)


def _latencies(governor: GovernorMetrics) -> Metric:
    labels = (*_GOVERNED, "quantile")
    family = GaugeMetricFamily("boulton_latency_ms", "Latency quantiles of the last window", labels=labels)
    if governor.last is not None:
        traffic = governor.last.window.traffic
        quantiles = {
            "0.5": traffic.latency_p50_ms,
            "0.95": traffic.latency_p95_ms,
            "0.99": traffic.latency_p99_ms,
        }
        for quantile, latency_ms in quantiles.items():
            if latency_ms is not None:
                family.add_metric([governor.gpu_uuid, governor.model, quantile], latency_ms)
    return family


def _one(governor: GovernorMetrics, name: str, text: str, value: float | None) -> Metric:
    family = GaugeMetricFamily(name, text, labels=_GOVERNED)
    if value is not None:
        family.add_metric([governor.gpu_uuid, governor.model], value)
    return family


def _count(governor: GovernorMetrics, name: str, text: str, value: float) -> Metric:
    family = CounterMetricFamily(name, text, labels=_GOVERNED)
    family.add_metric([governor.gpu_uuid, governor.model], value)
    return family
