from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from daemon_process import put_double, put_profile, start_daemon

from optimizer.governor import Governor
from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Decision
from optimizer.revenue import Targets
from optimizer.telemetry import DeviceReading, Energy, EnergySource, Traffic, Window
from protos import boulton_pb2 as pb
from protos import boulton_pb2_grpc as pb_grpc
from server.governing import operator_service
from server.governing.loop import Governing
from server.governing.operator_service import OperatorService

SOME_ENERGY = Energy(3.0, EnergySource.SIMULATED)
GRID = OperatingGrid((1, 2, 4), (500, 1000))


class FakePlant:
    def __init__(self, energy: Energy) -> None:
        self.energy = energy

    def sense(self, slo_ms: float) -> tuple[Traffic, DeviceReading]:
        traffic = Traffic(arrived=10, completed=9, late=2, refused=1, latency_p99_ms=slo_ms / 2)
        return traffic, DeviceReading(energy=self.energy, sm_clock_mhz=990)

    def act(self, point: OperatingPoint) -> None:
        pass


class FakeGpu:
    uuid = "fake-gpu"
    simulated = True
    sm_clocks_mhz = GRID.sm_clocks_mhz


class BySlo:
    """Takes the largest batch of the grid that is not above the SLO in milliseconds: easy to foresee."""

    name = "by-slo"

    def decide(self, window: Window, targets: Targets) -> Decision:
        limit = max((limit for limit in GRID.batch_limits if limit <= targets.slo_p99_ms), default=1)
        runner_up = OperatingPoint(1, 500)
        return Decision(
            OperatingPoint(limit, 500),
            "as the SLO says",
            0.25,
            runner_up=runner_up,
            runner_up_revenue_per_s=0.0,
        )


def make_governing(energy: Energy = SOME_ENERGY) -> Governing:
    ticks = itertools.count()
    governor = Governor(FakePlant(energy), BySlo(), GRID, Targets(slo_p99_ms=2.0), lambda: float(next(ticks)))
    return Governing(governor, FakeGpu(), "net", 0.005)


@asynccontextmanager
async def serving(governing: Governing | None) -> AsyncIterator[pb_grpc.OperatorServiceStub]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((OperatorService(lambda: governing).handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield pb_grpc.OperatorServiceStub(channel)
    if governing is not None:
        await governing.stop()
    await server.stop(None)


async def test_the_status_before_the_first_decision() -> None:
    async with serving(make_governing()) as stub:
        status = await stub.GetStatus(pb.GetStatusRequest())
    assert status.governed
    assert (status.model, status.policy, status.gpu_uuid, status.simulated) == (
        "net",
        "by-slo",
        "fake-gpu",
        True,
    )
    assert status.target == pb.OperatingPoint(batch_limit=4, sm_clock_mhz=1000)
    assert status.targets.slo_p99_ms == 2.0
    assert not status.targets.HasField("power_cap_w")
    assert not status.HasField("last")


async def test_decisions_are_streamed_with_everything_they_rest_on() -> None:
    governing = make_governing()
    async with serving(governing) as stub:
        stream = stub.WatchDecisions(pb.WatchDecisionsRequest())
        reading = asyncio.ensure_future(stream.read())
        await governing.start()
        decision = await reading
        assert decision.model == "net"
        assert decision.point == pb.OperatingPoint(batch_limit=2, sm_clock_mhz=500)
        assert decision.reason == "as the SLO says"
        assert "as the SLO says | last" in decision.line
        assert decision.window.completed == 9
        assert decision.window.sm_clock_actual_mhz == 990
        assert (decision.window.energy_j, decision.window.energy_source) == (3.0, "simulated")
        assert decision.revenue.energy_cost > 0
        assert decision.predicted_revenue_per_s == 0.25
        assert not decision.HasField("predicted_p99_ms")
        assert decision.runner_up.batch_limit == 1
        status = await stub.GetStatus(pb.GetStatusRequest())
        assert status.last.window.arrived == 10
        assert status.sm_clock_actual_mhz == 990


async def test_energy_that_was_not_measured_is_absent_and_not_zero() -> None:
    governing = make_governing(Energy(None, EnergySource.NOT_MEASURED))
    async with serving(governing) as stub:
        stream = stub.WatchDecisions(pb.WatchDecisionsRequest())
        reading = asyncio.ensure_future(stream.read())
        await governing.start()
        decision = await reading
    assert not decision.window.HasField("energy_j")
    assert decision.window.energy_source == "not-measured"
    assert not decision.revenue.HasField("energy_cost")


async def test_targets_take_effect_at_the_next_decision() -> None:
    governing = make_governing()
    async with serving(governing) as stub:
        stream = stub.WatchDecisions(pb.WatchDecisionsRequest())
        reading = asyncio.ensure_future(stream.read())
        await governing.start()
        assert (await reading).point.batch_limit == 2
        targets = await stub.SetTargets(pb.SetTargetsRequest(targets=pb.Targets(slo_p99_ms=4.0)))
        assert targets.slo_p99_ms == 4.0
        assert targets.price_per_1000_images == Targets().price_per_1000_images
        while (await stream.read()).point.batch_limit != 4:
            pass


async def test_a_power_cap_is_set_and_lifted() -> None:
    async with serving(make_governing()) as stub:
        capped = await stub.SetTargets(pb.SetTargetsRequest(targets=pb.Targets(power_cap_w=250.0)))
        assert capped.power_cap_w == 250.0
        lifted = await stub.SetTargets(pb.SetTargetsRequest(targets=pb.Targets(power_cap_w=0.0)))
        assert not lifted.HasField("power_cap_w")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (pb.Targets(slo_p99_ms=0.0), "slo_p99_ms"),
        (pb.Targets(slo_p99_ms=float("nan")), "slo_p99_ms"),
        (pb.Targets(energy_price_per_kwh=-1.0), "energy_price_per_kwh"),
        (pb.Targets(power_cap_w=-5.0), "power_cap_w"),
        (pb.Targets(price_per_1000_images=float("inf")), "price_per_1000_images"),
        (pb.Targets(form="charity"), "form"),
        (pb.Targets(), "no target given"),
    ],
)
async def test_wrong_targets_are_refused_and_change_nothing(targets: pb.Targets, message: str) -> None:
    governing = make_governing()
    before = governing.governor.targets
    async with serving(governing) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.SetTargets(pb.SetTargetsRequest(targets=targets))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in refused.value.details()
    assert governing.governor.targets == before


async def test_where_nothing_is_governed() -> None:
    async with serving(None) as stub:
        assert not (await stub.GetStatus(pb.GetStatusRequest())).governed
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.SetTargets(pb.SetTargetsRequest(targets=pb.Targets(slo_p99_ms=4.0)))
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert await stub.WatchDecisions(pb.WatchDecisionsRequest()).code() is grpc.StatusCode.UNIMPLEMENTED


async def test_watchers_are_limited_and_leave_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_service, "MAX_WATCHERS", 1)
    governing = make_governing()
    async with serving(governing) as stub:
        await governing.start()
        first = stub.WatchDecisions(pb.WatchDecisionsRequest())
        await first.read()
        refused = stub.WatchDecisions(pb.WatchDecisionsRequest())
        assert await refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        first.cancel()
        while governing.watchers:  # noqa: ASYNC110  # leaving sets no event
            await asyncio.sleep(0)
        again = stub.WatchDecisions(pb.WatchDecisionsRequest())
        assert (await again.read()).model == "net"


async def test_watching_ends_with_the_governor() -> None:
    governing = make_governing()
    async with serving(governing) as stub:
        await governing.start()
        stream = stub.WatchDecisions(pb.WatchDecisionsRequest())
        await stream.read()
        await governing.stop()
        while await stream.read() is not grpc.aio.EOF:
            pass
        assert await stream.code() is grpc.StatusCode.OK
        late = stub.WatchDecisions(pb.WatchDecisionsRequest())
        assert await late.read() is grpc.aio.EOF


async def test_bytes_that_are_no_message_are_refused() -> None:
    async with serving(make_governing()) as stub:
        for call in (stub.GetStatus, stub.SetTargets):
            call._request_serializer = lambda message: message
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(b"\xff")
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_daemon_lets_the_operator_watch_and_steer(tmp_path: Path) -> None:
    repository = put_double(tmp_path / "repository")
    flags = ("--engine", "simulated", "--gpu", put_profile(tmp_path, 1.0), "--decision-interval-s", "0.05")
    with (
        start_daemon(tmp_path, "--repository", repository, *flags) as daemon,
        grpc.insecure_channel(daemon.operator_address) as channel,
    ):
        stub = pb_grpc.OperatorServiceStub(channel)
        status = stub.GetStatus(pb.GetStatusRequest(), timeout=30)
        assert (status.model, status.gpu_uuid, status.simulated) == ("double", "simulated-test", True)
        wanted = pb.SetTargetsRequest(targets=pb.Targets(slo_p99_ms=7.0))
        assert stub.SetTargets(wanted, timeout=30).slo_p99_ms == 7.0
        decision = next(stub.WatchDecisions(pb.WatchDecisionsRequest(), timeout=30))
        assert decision.window.energy_source == "simulated"
        assert decision.window.energy_j > 0
        assert stub.GetStatus(pb.GetStatusRequest(), timeout=30).targets.slo_p99_ms == 7.0
