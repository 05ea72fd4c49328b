from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from optimizer.governor import Record
from optimizer.holdback import Interval, Saving
from optimizer.operating_point import OperatingPoint
from optimizer.policies.policy import Decision
from optimizer.revenue import Targets, window_revenue
from optimizer.telemetry import NOT_MEASURED, DeviceReading, Energy, EnergySource, Traffic, Window
from server.devices.served import ControlState
from server.errors import ConfigError
from server.metrics.endpoint import (
    DeviceMetrics,
    FrontEndMetrics,
    GovernorMetrics,
    MetricsServer,
    ModelMetrics,
    RunningTotals,
    Totals,
    start_metrics_server,
)
from server.scheduling.statistics import BatchStatistics, ModelStatistics, Tally

GPU = "GPU-1234"
POINT = OperatingPoint(8, 1095)
SIMULATED = DeviceReading(Energy(120.0, EnergySource.SIMULATED), power_w=60.0, sm_clock_mhz=1080)
TRAFFIC = Traffic(
    arrived=110,
    completed=100,
    late=10,
    refused=4,
    expired=3,
    cancelled=2,
    latency_p50_ms=5.0,
    latency_p99_ms=9.5,
)


@dataclass
class Source:
    shown: tuple[ModelMetrics, ...] = ()
    governed: GovernorMetrics | None = None
    reads: int = 0
    runs_on: DeviceMetrics = field(default_factory=lambda: DeviceMetrics(GPU))
    speaks: FrontEndMetrics | None = None

    def models(self) -> tuple[ModelMetrics, ...]:
        self.reads += 1
        return self.shown

    def governor(self) -> GovernorMetrics | None:
        return self.governed

    def device(self) -> DeviceMetrics:
        return self.runs_on

    def front_ends(self) -> FrontEndMetrics | None:
        return self.speaks


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def server(source: Source) -> Iterator[MetricsServer]:
    server = start_metrics_server(source, "127.0.0.1", 0, version="1.2.3")
    yield server
    server.close()


def fetch(server: MetricsServer, accept: str = "text/plain") -> str:
    url = f"http://127.0.0.1:{server.port}/metrics"
    with urllib.request.urlopen(
        urllib.request.Request(url, headers={"Accept": accept}), timeout=10
    ) as answer:
        return answer.read().decode()


def samples(server: MetricsServer) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = parse_text(fetch(server))
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def counters() -> ModelStatistics:
    statistics = ModelStatistics(
        success=Tally(7, 7_000_000),
        fail=Tally(6, 1_000),
        queue=Tally(7, 1_000_000),
        compute_input=Tally(7, 500_000),
        compute_infer=Tally(7, 5_000_000),
        compute_output=Tally(7, 250_000),
        inference_count=20,
        execution_count=4,
        reject_count=2,
        expired_count=1,
        cancel_count=5,
    )
    statistics.batch_stats = {
        1: BatchStatistics(compute_infer=Tally(1, 10)),
        5: BatchStatistics(compute_infer=Tally(2, 50)),
        9: BatchStatistics(compute_infer=Tally(1, 60)),
    }
    return statistics


def model(name: str = "net", statistics: ModelStatistics | None = None) -> ModelMetrics:
    return ModelMetrics(name, 3, statistics or counters(), 11, 22, 16, GPU)


def record(device: DeviceReading = SIMULATED, traffic: Traffic = TRAFFIC) -> Record:
    window = Window(10.0, 12.0, POINT, traffic, device)
    return Record(window, window_revenue(Targets(), window), Decision(POINT, "because"))


def governor(*records: Record) -> GovernorMetrics:
    totals = RunningTotals()
    for each in records:
        totals.add(each)
    last = records[-1] if records else None
    return GovernorMetrics(GPU, "net", "hill-climb", POINT, totals.value, last, cpu_s=0.25)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nv_inference_request_success", 7),
        ("nv_inference_count", 20),
        ("nv_inference_exec_count", 4),
        ("nv_inference_request_duration_us", 7000),
        ("nv_inference_queue_duration_us", 1000),
        ("nv_inference_compute_input_duration_us", 500),
        ("nv_inference_compute_infer_duration_us", 5000),
        ("nv_inference_compute_output_duration_us", 250),
        ("nv_inference_pending_request_count", 11),
    ],
)
def test_models_have_tritons_names_and_labels(
    source: Source, server: MetricsServer, name: str, value: float
) -> None:
    source.shown = (model(),)

    assert samples(server)[key(name, model="net", version="3", gpu_uuid=GPU)] == value


def test_on_the_cpu_tritons_names_have_no_gpu_and_boultons_name_the_device(
    source: Source, server: MetricsServer
) -> None:
    source.shown = (replace(model(), gpu_uuid="cpu-package", on_gpu=False),)

    found = samples(server)

    inference = {name: dict(labels) for name, labels in found if name.startswith("nv_inference")}
    assert len(inference) == 10
    assert all(labels.items() >= {"model": "net", "version": "3"}.items() for labels in inference.values())
    assert not any("gpu_uuid" in labels for labels in inference.values())
    assert found[key("boulton_batch_limit", model="net", version="3", gpu_uuid="cpu-package")] == 16


def test_failures_are_told_apart_by_reason(source: Source, server: MetricsServer) -> None:
    source.shown = (model(),)

    found = samples(server)

    labels = {"model": "net", "version": "3", "gpu_uuid": GPU}
    for reason, count in {"REJECTED": 3, "CANCELED": 5, "BACKEND": 3}.items():
        assert found[key("nv_inference_request_failure", **labels, reason=reason)] == count


def test_batch_limit_and_queue_are_labelled_by_gpu_too(source: Source, server: MetricsServer) -> None:
    source.shown = (model(),)

    found = samples(server)

    assert found[key("boulton_batch_limit", model="net", version="3", gpu_uuid=GPU)] == 16
    assert found[key("boulton_queued_images", model="net", version="3", gpu_uuid=GPU)] == 22


def test_batch_sizes_are_a_cumulative_histogram(source: Source, server: MetricsServer) -> None:
    source.shown = (model(),)
    labels = {"model": "net", "version": "3", "gpu_uuid": GPU}

    found = samples(server)

    expected = {"1.0": 1, "2.0": 1, "4.0": 1, "8.0": 3, "16.0": 4, "+Inf": 4}
    buckets = {
        dict(labels_)["le"]: value
        for (name, labels_), value in found.items()
        if name == "boulton_batch_size_bucket"
    }
    assert buckets == expected
    assert found[key("boulton_batch_size_count", **labels)] == 4
    assert found[key("boulton_batch_size_sum", **labels)] == 20


def test_a_model_that_ran_nothing_has_an_empty_histogram(source: Source, server: MetricsServer) -> None:
    source.shown = (model(statistics=ModelStatistics()),)

    found = samples(server)

    assert found[key("boulton_batch_size_count", model="net", version="3", gpu_uuid=GPU)] == 0


@pytest.mark.parametrize("name", ['say "hello"', "two\nlines", "back\\slash", "naïve", "a,b={c}"])
def test_any_model_name_survives_the_scrape(source: Source, server: MetricsServer, name: str) -> None:
    source.shown = (model(name),)

    assert samples(server)[key("nv_inference_count", model=name, version="3", gpu_uuid=GPU)] == 20


def test_families_appear_once_however_many_models(source: Source, server: MetricsServer) -> None:
    source.shown = (model("a"), model("b"))
    source.governed = governor(record())

    names = [family.name for family in parse_text(fetch(server))]

    assert len(names) == len(set(names))


def test_scraping_in_openmetrics_works_too(source: Source, server: MetricsServer) -> None:
    source.shown = (model(),)
    source.governed = governor(record())

    families = list(parse_openmetrics(fetch(server, "application/openmetrics-text; version=1.0.0")))

    found = {sample.name for family in families for sample in family.samples}
    assert {"nv_inference_count", "boulton_revenue_total", "boulton_decisions_total"} <= found


def test_the_governor_shows_clocks_counts_and_money(source: Source, server: MetricsServer) -> None:
    source.governed = governor(record(), record())
    labels = {"gpu_uuid": GPU, "model": "net"}
    revenue = record().revenue

    found = samples(server)

    assert found[key("boulton_sm_clock_target_mhz", **labels)] == 1095
    assert found[key("boulton_sm_clock_actual_mhz", **labels)] == 1080
    assert found[key("boulton_decisions_total", **labels)] == 2
    assert found[key("boulton_governor_cpu_seconds_total", **labels)] == 0.25
    assert found[key("boulton_late_images_total", **labels)] == 20
    assert found[key("boulton_refused_images_total", **labels)] == 8
    assert found[key("boulton_expired_images_total", **labels)] == 6
    assert found[key("boulton_cancelled_images_total", **labels)] == 4
    assert found[key("boulton_income_total", **labels)] == pytest.approx(2 * revenue.income)
    assert found[key("boulton_revenue_total", **labels)] == pytest.approx(2 * revenue.total)
    assert found[key("boulton_revenue_rate", **labels)] == pytest.approx(revenue.total / 2.0)
    assert found[key("boulton_governor_info", policy="hill-climb", **labels)] == 1


def test_the_operator_s_orders_and_the_alarms_are_shown(source: Source, server: MetricsServer) -> None:
    labels = {"gpu_uuid": GPU, "model": "net"}
    source.governed = governor(record())
    found = samples(server)
    assert found[key("boulton_governor_paused", **labels)] == 0
    assert found[key("boulton_governor_pinned", **labels)] == 0
    assert found[key("boulton_targets_infeasible", **labels)] == 0
    assert found[key("boulton_alarms_total", **labels)] == 0
    hopeless = replace(record(), decision=Decision(POINT, "because", infeasible="too tight"))
    source.governed = replace(governor(hopeless), paused=True, pinned=True, alarms=3)
    found = samples(server)
    assert found[key("boulton_governor_paused", **labels)] == 1
    assert found[key("boulton_governor_pinned", **labels)] == 1
    assert found[key("boulton_targets_infeasible", **labels)] == 1
    assert found[key("boulton_alarms_total", **labels)] == 3


def test_a_score_that_is_no_money_is_not_added_to_money(source: Source, server: MetricsServer) -> None:
    window = record().window
    average = replace(record(), revenue=window_revenue(Targets(form="edp"), window))
    source.governed = governor(record(), average)
    labels = {"gpu_uuid": GPU, "model": "net"}
    found = samples(server)
    assert found[key("boulton_revenue_total", **labels)] == pytest.approx(record().revenue.total)
    assert key("boulton_revenue_rate", **labels) not in found
    assert found[key("boulton_score", form="edp", **labels)] == pytest.approx(average.revenue.total)


def test_energy_and_power_carry_their_source(source: Source, server: MetricsServer) -> None:
    source.governed = governor(record(), record())
    labels = {"gpu_uuid": GPU, "source": "simulated"}

    found = samples(server)

    assert found[key("boulton_energy_joules_total", **labels)] == 240.0
    assert found[key("nv_energy_consumption", **labels)] == 240.0
    assert found[key("nv_gpu_power_usage", **labels)] == 60.0
    assert found[key("boulton_power_watts", **labels)] == 60.0


def test_sources_of_energy_are_never_added_up(source: Source, server: MetricsServer) -> None:
    counted = DeviceReading(Energy(7.0, EnergySource.NVML_ENERGY_COUNTER))
    source.governed = governor(record(), record(counted))

    found = samples(server)

    assert found[key("boulton_energy_joules_total", gpu_uuid=GPU, source="simulated")] == 120.0
    assert found[key("boulton_energy_joules_total", gpu_uuid=GPU, source="nvml-energy-counter")] == 7.0


def test_energy_of_a_cpu_is_not_shown_as_a_gpus(source: Source, server: MetricsServer) -> None:
    reading = DeviceReading(Energy(9.0, EnergySource.RAPL), power_w=4.5)
    source.governed = governor(record(reading))

    found = samples(server)

    names = {name for name, _ in found}
    assert found[key("boulton_energy_joules_total", gpu_uuid=GPU, source="rapl")] == 9.0
    assert not {"nv_energy_consumption", "nv_gpu_power_usage"} & names


def test_what_nothing_measured_is_absent(source: Source, server: MetricsServer) -> None:
    source.governed = governor(record(DeviceReading(NOT_MEASURED, power_w=50.0), Traffic()))

    names = {name for name, _ in samples(server)}

    absent = {
        "boulton_energy_joules_total",
        "boulton_energy_cost_total",
        "boulton_power_watts",
        "boulton_sm_clock_actual_mhz",
        "boulton_latency_ms",
        "nv_energy_consumption",
        "nv_gpu_power_usage",
    }
    assert not absent & names
    assert "boulton_revenue_total" in names


def test_before_the_first_decision_only_the_target_is_known(source: Source, server: MetricsServer) -> None:
    source.governed = replace(governor(), target=OperatingPoint(4))

    found = samples(server)

    names = {name for name, _ in found}
    assert found[key("boulton_batch_limit_target", gpu_uuid=GPU, model="net")] == 4
    assert not {"boulton_sm_clock_target_mhz", "boulton_revenue_rate"} & names


def test_latency_quantiles_of_the_last_window(source: Source, server: MetricsServer) -> None:
    source.governed = governor(record())

    found = samples(server)

    quantiles = {
        dict(labels)["quantile"]: value
        for (name, labels), value in found.items()
        if name == "boulton_latency_ms"
    }
    assert quantiles == {"0.5": 5.0, "0.99": 9.5}


def test_the_build_and_the_process_are_shown(server: MetricsServer) -> None:
    found = samples(server)

    assert found[key("boulton_build_info", version="1.2.3")] == 1
    assert found[key("process_resident_memory_bytes")] > 0


def test_snapshots_are_read_at_each_scrape_and_only_then(source: Source, server: MetricsServer) -> None:
    assert source.reads == 0

    fetch(server)
    fetch(server)

    assert source.reads == 2


def test_a_busy_port_says_what_to_do(source: Source, server: MetricsServer) -> None:
    with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{server.port}: the port is in use.*--metrics-port"):
        start_metrics_server(source, "127.0.0.1", server.port)


def test_an_address_of_another_machine_says_what_to_do(source: Source) -> None:
    with pytest.raises(ConfigError, match="choose an address of this machine"):
        start_metrics_server(source, "192.0.2.1", 0)


def test_closing_frees_the_port_and_ends_the_thread(source: Source) -> None:
    server = start_metrics_server(source, "127.0.0.1", 0)
    port = server.port

    server.close()
    server.close()

    assert "metrics" not in {thread.name for thread in threading.enumerate()}
    start_metrics_server(source, "127.0.0.1", port).close()


def test_a_client_that_says_nothing_keeps_nobody_waiting(source: Source, server: MetricsServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)):
        assert "boulton_build_info" in fetch(server)


def test_loopback_of_ipv6(source: Source) -> None:
    try:
        server = start_metrics_server(source, "[::1]", 0)
    except ConfigError:
        pytest.skip("this machine has no IPv6")
    try:
        with socket.create_connection(("::1", server.port), timeout=10) as connection:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.0 200"
    finally:
        server.close()


def test_totals_start_at_nothing() -> None:
    assert RunningTotals().value == Totals()
    assert Totals().revenue == 0.0


@pytest.mark.parametrize("state", ControlState)
def test_one_state_of_control_is_in_force(source: Source, server: MetricsServer, state: ControlState) -> None:
    source.runs_on = DeviceMetrics(GPU, state)
    shown = samples(server)
    states = {other: shown[key("boulton_gpu_control", gpu_uuid=GPU, state=other)] for other in ControlState}
    assert states == {other: float(other is state) for other in ControlState}


def test_nvml_s_failures_are_counted_by_function_and_code(source: Source, server: MetricsServer) -> None:
    failures = {("nvmlDeviceGetClockInfo", "GPU_IS_LOST"): 3, ("nvmlInit", "TIMEOUT"): 1}
    source.runs_on = DeviceMetrics(GPU, failures=failures)
    shown = samples(server)
    for (function, code), count in failures.items():
        assert shown[key("boulton_nvml_failures_total", gpu_uuid=GPU, function=function, code=code)] == count


def test_temperature_and_a_clock_that_was_not_taken(source: Source, server: MetricsServer) -> None:
    hot = replace(SIMULATED, temperature_c=71.0, clock_not_taken="1200 MHz is in force")
    source.governed = governor(record(hot))
    shown = samples(server)
    assert shown[key("boulton_gpu_temperature_celsius", gpu_uuid=GPU, model="net")] == 71.0
    assert shown[key("boulton_clock_not_taken", gpu_uuid=GPU, model="net")] == 1.0
    source.governed = governor(record())
    shown = samples(server)
    assert shown[key("boulton_clock_not_taken", gpu_uuid=GPU, model="net")] == 0.0
    assert key("boulton_gpu_temperature_celsius", gpu_uuid=GPU, model="net") not in shown, "not measured"


def test_rows_computed_in_vain_are_counted(source: Source, server: MetricsServer) -> None:
    source.shown = (replace(model(), padded_images=17),)
    labels = {"model": "net", "version": "3", "gpu_uuid": GPU}
    assert samples(server)[key("boulton_padded_images_total", **labels)] == 17.0


def test_what_is_saved_comes_with_its_bounds(source: Source, server: MetricsServer) -> None:
    saving = Saving(
        9, Interval(0.002, 0.001, 0.003), Interval(12.0, 10.0, 14.0), EnergySource.SIMULATED, dropped=4
    )
    source.governed = replace(governor(record()), saving=saving)
    found = samples(server)
    labels = {"gpu_uuid": GPU, "model": "net"}
    assert found[key("boulton_saving_comparisons_total", **labels)] == 13, "a counter never falls"
    assert found[key("boulton_saved_revenue_per_hour", **labels, bound="mean")] == pytest.approx(7.2)
    assert found[key("boulton_saved_watts", **labels, source="simulated", bound="low")] == 10.0
    scored = record()
    scored = replace(scored, revenue=replace(scored.revenue, form="edp"))
    source.governed = replace(governor(scored), saving=saving)
    found = samples(server)
    assert found[key("boulton_saved_score", **labels, bound="mean")] == pytest.approx(0.002)
    assert key("boulton_saved_revenue_per_hour", **labels, bound="mean") not in found


def test_where_nothing_is_held_back_nothing_is_called_saved(source: Source, server: MetricsServer) -> None:
    source.governed = governor(record())
    assert not any("saved" in name or "saving" in name for name in samples(server))


def test_front_ends_are_counted_where_there_are_any(server: MetricsServer, source: Source) -> None:
    assert not any(name.startswith("boulton_front_end") for name, _ in samples(server))
    source.speaks = FrontEndMetrics(running=3, restarts=2)
    shown = samples(server)
    assert shown[key("boulton_front_ends")] == 3
    assert shown[key("boulton_front_end_restarts_total")] == 2
