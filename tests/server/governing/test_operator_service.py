from __future__ import annotations

import asyncio
import itertools
import json
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import grpc
import pytest
from daemon_process import put_double, put_profile, start_daemon

from optimizer.governor import Governor
from optimizer.holdback import Holdback
from optimizer.insight import Insight, TriedSetting
from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Alarm, Decision, Policy, Prediction
from optimizer.revenue import Targets
from optimizer.surge import Tripwire
from optimizer.telemetry import DeviceReading, Energy, EnergySource, Traffic, Window
from protos import boulton_pb2 as pb
from protos import boulton_pb2_grpc as pb_grpc
from protos import grpc_service_pb2, grpc_service_pb2_grpc
from server.governing import operator_service
from server.governing.keeping import LearnedFile, TargetsFile
from server.governing.loop import Governing
from server.governing.memory import Keeping
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

    def watch(self, wire: Tripwire | None, sound: object) -> None:
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
            alarm=Alarm(Tripwire(40, 120.0, 9.5), OperatingPoint(4, 1000)),
            alternatives=(
                Prediction(runner_up, 0.0, 3.0, None),
                Prediction(OperatingPoint(4, 500, max_delay_ms=2.0), -0.1, 9.0, 80.0),
            ),
            infeasible="the SLO is too tight" if targets.slo_p99_ms < 1 else None,
            learned="a batch of 4 takes 3 ms",
        )


class Learning(BySlo):
    """Implements `Learner` too."""

    name = "learning"

    def __init__(self) -> None:
        self.known: dict[str, object] = {"windows": 0}

    def decide(self, window: Window, targets: Targets) -> Decision:
        self.known = {"windows": int(str(self.known["windows"])) + 1}
        return super().decide(window, targets)

    def export_state(self) -> dict[str, object]:
        return self.known

    def import_state(self, state: dict[str, object]) -> None:
        self.known = dict(state)

    def forget(self) -> None:
        self.known = {"windows": 0}


def make_governing(
    energy: Energy = SOME_ENERGY,
    policy: Policy | None = None,
    keeping: Keeping | None = None,
    interval_s: float = 0.005,
) -> Governing:
    ticks = itertools.count()
    targets = Targets(slo_p99_ms=2.0)
    governor = Governor(FakePlant(energy), policy or BySlo(), GRID, targets, lambda: float(next(ticks)))
    return Governing(governor, FakeGpu(), "net", interval_s, keeping)


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


async def test_the_status_tells_what_is_saved_where_something_is_held_back() -> None:
    governing = make_governing()
    governing.governor.holdback = Holdback(0.5, Random(2))
    async with serving(governing) as stub:
        stream = stub.WatchDecisions(pb.WatchDecisionsRequest())
        reading = asyncio.ensure_future(stream.read())
        await governing.start()
        held = await reading
        while not held.held_back:
            held = await stream.read()
        assert held.line.startswith("the default setting is held for comparison; else ")
        while (status := await stub.GetStatus(pb.GetStatusRequest())).saving.comparisons < 5:
            await stream.read()
    assert status.saving.HasField("revenue_per_s")
    assert status.saving.HasField("power_w")
    assert status.saving.energy_source == SOME_ENERGY.source


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
        assert "as the SLO says | alarm: once more than 40 images wait" in decision.line
        assert decision.window.completed == 9
        assert decision.window.sm_clock_actual_mhz == 990
        assert (decision.window.energy_j, decision.window.energy_source) == (3.0, "simulated")
        assert decision.revenue.energy_cost > 0
        assert decision.predicted_revenue_per_s == 0.25
        assert not decision.HasField("predicted_p99_ms")
        assert decision.runner_up.batch_limit == 1
        assert (decision.alarm.queued_images, decision.alarm.refuge.batch_limit) == (40, 4)
        assert (decision.alarm.rate_per_s, decision.alarm.burst_images) == (120.0, 9.5)
        assert [each.p99_ms for each in decision.alternatives] == [3.0, 9.0]
        assert not decision.alternatives[0].HasField("power_w")
        assert decision.alternatives[1].point.max_delay_ms == 2.0
        assert not decision.HasField("infeasible")
        assert decision.learned == "a batch of 4 takes 3 ms"
        assert decision.revenue.form == "profit"
        assert decision.decided_unix_s > 0
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


def point_with(**axes: float) -> pb.PinRequest:
    return pb.PinRequest(point=pb.OperatingPoint(batch_limit=4, sm_clock_mhz=500, **axes))


def tariff(*steps: tuple[float, float]) -> pb.Targets:
    return pb.Targets(
        energy_price_steps=[pb.PriceStep(start_s=at, price_per_kwh=price) for at, price in steps]
    )


async def test_prices_by_time_of_day_travel_both_ways() -> None:
    wanted = tariff((0.0, 0.1), (3600.0, 0.4))
    async with serving(make_governing()) as stub:
        changed = await stub.SetTargets(pb.SetTargetsRequest(targets=wanted))
        assert changed.energy_price_steps == wanted.energy_price_steps
        assert not changed.HasField("energy_price_per_kwh")
        assert await stub.GetTargets(pb.GetTargetsRequest()) == changed
        plain = await stub.SetTargets(pb.SetTargetsRequest(targets=pb.Targets(energy_price_per_kwh=0.2)))
        assert (plain.energy_price_per_kwh, len(plain.energy_price_steps)) == (0.2, 0)


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
        (pb.Targets(zeus_eta=1.5), "zeus_eta"),
        (tariff((3600.0, 0.1), (0.0, 0.2)), "must ascend"),
        (tariff((0.0, -0.1)), "price_per_kwh = -0.1"),
        (tariff((90000.0, 0.1)), "within a day"),
        (pb.Targets(energy_price_per_kwh=0.1, energy_price_steps=[pb.PriceStep()]), "exclude each other"),
        (
            pb.Targets.FromString(pb.Targets(slo_p99_ms=9.0).SerializeToString() + b"\xfa\x07\x01x"),
            "no field number 127",
        ),
        (pb.Targets(slo_p99_ms=9.0, carbon_price_per_kg=-1.0), "carbon_price_per_kg"),
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


async def test_what_cannot_be_kept_is_said() -> None:
    governing = make_governing(interval_s=3600.0)
    async with serving(governing) as stub:
        await governing.start()
        await stub.SetTargets(pb.SetTargetsRequest(targets=pb.Targets(slo_p99_ms=0.5)))
        await governing._step()
        (decision,) = (await stub.ListDecisions(pb.ListDecisionsRequest())).decisions
    assert decision.infeasible == "the SLO is too tight"
    assert "targets cannot be kept: the SLO is too tight" in decision.line


async def test_the_latest_decisions_are_listed_oldest_first() -> None:
    governing = make_governing(interval_s=3600.0)
    async with serving(governing) as stub:
        await governing.start()
        for slo_ms in (1.0, 2.0, 4.0):
            await stub.SetTargets(pb.SetTargetsRequest(targets=pb.Targets(slo_p99_ms=slo_ms)))
            await governing._step()
        every = await stub.ListDecisions(pb.ListDecisionsRequest())
        last = await stub.ListDecisions(pb.ListDecisionsRequest(count=2))
        more = await stub.ListDecisions(pb.ListDecisionsRequest(count=2**32 - 1))
    assert [decision.point.batch_limit for decision in every.decisions] == [1, 2, 4]
    assert [decision.point.batch_limit for decision in last.decisions] == [2, 4]
    assert more == every


async def test_a_pinned_setting_is_held_until_it_is_let_go() -> None:
    governing = make_governing(interval_s=3600.0)
    async with serving(governing) as stub:
        await governing.start()
        point = pb.OperatingPoint(batch_limit=4, sm_clock_mhz=500, max_delay_ms=2.0)
        status = await stub.Pin(pb.PinRequest(point=point))
        assert status.pinned == point
        await governing._step()
        status = await stub.GetStatus(pb.GetStatusRequest())
        assert status.target == point
        assert status.last.pinned == point
        assert status.last.point.batch_limit == 2
        assert not (await stub.Unpin(pb.UnpinRequest())).HasField("pinned")
        await governing._step()
        assert (await stub.GetStatus(pb.GetStatusRequest())).target.batch_limit == 2


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (pb.PinRequest(), "no setting given"),
        (pb.PinRequest(point=pb.OperatingPoint(sm_clock_mhz=500)), "batch limits go from 1 to 4"),
        (pb.PinRequest(point=pb.OperatingPoint(batch_limit=3, sm_clock_mhz=500)), "clocks are 500, 1000 MHz"),
        (pb.PinRequest(point=pb.OperatingPoint(batch_limit=4, sm_clock_mhz=777)), "clocks are 500, 1000 MHz"),
        (pb.PinRequest(point=pb.OperatingPoint(batch_limit=4)), "not among the 6 legal settings"),
        (point_with(max_delay_ms=-1.0), "max_delay_ms = -1"),
        (point_with(max_delay_ms=float("nan")), "max_delay_ms = nan"),
        (point_with(max_delay_ms=1e9), "expected 0 to 60000"),
        (point_with(power_limit_w=100.0), "power limit cannot be pinned"),
        (point_with(memory_clock_mhz=100), "memory clock"),
    ],
)
async def test_a_setting_that_is_not_legal_is_not_pinned(request_: pb.PinRequest, message: str) -> None:
    governing = make_governing()
    async with serving(governing) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Pin(request_)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in refused.value.details()
    assert governing.governor.pinned is None


async def test_a_paused_governor_decides_nothing_but_measures() -> None:
    policy = Learning()
    governing = make_governing(policy=policy, interval_s=3600.0)
    async with serving(governing) as stub:
        await governing.start()
        assert (await stub.Pause(pb.PauseRequest())).paused
        await governing._step()
        status = await stub.GetStatus(pb.GetStatusRequest())
        assert (status.paused, status.last.paused) == (True, True)
        assert status.last.window.completed == 9
        assert status.target == pb.OperatingPoint(batch_limit=4, sm_clock_mhz=1000)
        assert policy.known == {"windows": 0}
        assert not (await stub.Resume(pb.ResumeRequest())).paused
        await governing._step()
        assert policy.known == {"windows": 1}


async def test_what_was_learned_is_listed_and_forgotten_while_running(tmp_path: Path) -> None:
    learned = LearnedFile(tmp_path, "fake-gpu", "net", "FP32", "learning")
    keeping = Keeping(TargetsFile(tmp_path, Path("models"), "net", Targets(slo_p99_ms=2.0)), learned)
    governing = make_governing(policy=Learning(), keeping=keeping)
    async with serving(governing) as stub:
        stream = stub.WatchDecisions(pb.WatchDecisionsRequest())
        reading = asyncio.ensure_future(stream.read())
        await governing.start()
        await reading
        for _ in range(5):
            await stream.read()
        before = await stub.ListLearned(pb.ListLearnedRequest())
        assert (before.policy, before.learns, before.file) == ("learning", True, str(learned.path))
        known = json.loads(before.state_json)["windows"]
        assert known >= 6
        assert not before.HasField("insight"), "this policy cannot tell"
        await stub.Forget(pb.ForgetRequest())
        after = json.loads((await stub.ListLearned(pb.ListLearnedRequest())).state_json)["windows"]
        assert after < known
        await stream.read()


class Telling(Learning):
    """Implements `Insightful` too; says in whose thread it was asked."""

    def __init__(self, *tried: TriedSetting, idle_power_w: float | None) -> None:
        super().__init__()
        self.told = Insight(tried, idle_power_w, 0.25, -1.5, 10.0, 1.1, 2.5, 6.0)
        self.asked_in = ""

    def insight(self) -> Insight:
        self.asked_in = threading.current_thread().name
        return self.told


async def test_a_policy_that_can_tell_is_asked_in_the_governors_thread() -> None:
    policy = Telling(
        TriedSetting(4, 1000, 3.5, 70.0, 0.9), TriedSetting(2, None, 1.5, None, 0.1), idle_power_w=23.0
    )
    async with serving(make_governing(policy=policy)) as stub:
        told = (await stub.ListLearned(pb.ListLearnedRequest())).insight
        assert (told.idle_power_w, told.doubt, told.overhead_ms) == (23.0, 0.25, -1.5)
        assert (told.rate_per_s, told.burstiness, told.unevenness, told.evenness) == (10.0, 1.1, 2.5, 6.0)
        first, second = told.tried
        assert (first.batch, first.sm_clock_mhz, first.batch_ms) == (4, 1000, 3.5)
        assert (first.power_w, first.known) == (70.0, 0.9)
        assert not second.HasField("sm_clock_mhz")
        assert not second.HasField("power_w")
        policy.told = replace(policy.told, idle_power_w=None)
        again = await stub.ListLearned(pb.ListLearnedRequest())
        assert not again.insight.HasField("idle_power_w")
    assert policy.asked_in not in ("", threading.main_thread().name)


async def test_a_policy_that_learns_nothing_has_nothing_to_forget() -> None:
    async with serving(make_governing()) as stub:
        assert not (await stub.ListLearned(pb.ListLearnedRequest())).learns
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Forget(pb.ForgetRequest())
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_targets_that_are_set_are_kept(tmp_path: Path) -> None:
    targets = TargetsFile(tmp_path, Path("models"), "net", Targets())
    keeping = Keeping(targets, LearnedFile(tmp_path, "fake-gpu", "net", "FP32", "by-slo"))
    async with serving(make_governing(keeping=keeping)) as stub:
        await stub.SetTargets(pb.SetTargetsRequest(targets=pb.Targets(slo_p99_ms=4.0)))
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.SetTargets(pb.SetTargetsRequest(targets=pb.Targets(slo_p99_ms=-4.0)))
    assert targets.load() == Targets(slo_p99_ms=4.0)


async def test_where_nothing_is_governed() -> None:
    async with serving(None) as stub:
        assert not (await stub.GetStatus(pb.GetStatusRequest())).governed
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.SetTargets(pb.SetTargetsRequest(targets=pb.Targets(slo_p99_ms=4.0)))
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert await stub.WatchDecisions(pb.WatchDecisionsRequest()).code() is grpc.StatusCode.UNIMPLEMENTED
        for call, request in (
            (stub.GetTargets, pb.GetTargetsRequest()),
            (stub.ListDecisions, pb.ListDecisionsRequest()),
            (stub.Pause, pb.PauseRequest()),
            (stub.Resume, pb.ResumeRequest()),
            (stub.Pin, point_with()),
            (stub.Unpin, pb.UnpinRequest()),
            (stub.ListLearned, pb.ListLearnedRequest()),
            (stub.Forget, pb.ForgetRequest()),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(request)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


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


KNOWN = "client client-token-0123456789\noperator operator-token-0123456789\n"


def test_the_operator_s_port_wants_a_token_of_its_own(tmp_path: Path) -> None:
    repository = put_double(tmp_path / "repository")
    (tmp_path / "tokens").write_text(KNOWN)
    flags = ("--repository", repository, "--operator-token-file", tmp_path / "tokens")
    with start_daemon(tmp_path, *flags) as daemon:
        with grpc.insecure_channel(daemon.operator_address) as channel:
            stub = pb_grpc.OperatorServiceStub(channel)
            ask = pb.GetStatusRequest()
            for token, code in (
                (None, grpc.StatusCode.UNAUTHENTICATED),
                ("foreign-token-0123456789", grpc.StatusCode.UNAUTHENTICATED),
                ("client-token-0123456789", grpc.StatusCode.PERMISSION_DENIED),
            ):
                metadata = (("authorization", f"Bearer {token}"),) if token else ()
                with pytest.raises(grpc.RpcError) as refused:
                    stub.GetStatus(ask, metadata=metadata, timeout=30)
                assert refused.value.code() is code
            known = (("authorization", "Bearer operator-token-0123456789"),)
            assert stub.GetStatus(ask, metadata=known, timeout=30).governed
        with grpc.insecure_channel(daemon.address) as channel:
            live = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
            assert live.ServerMetadata(grpc_service_pb2.ServerMetadataRequest(), timeout=30).name
            operator = pb_grpc.OperatorServiceStub(channel)
            with pytest.raises(grpc.RpcError) as refused:
                operator.GetStatus(ask, timeout=30)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_targets_outlive_the_daemon(tmp_path: Path) -> None:
    repository = put_double(tmp_path / "repository")
    flags = ("--repository", repository, "--decision-interval-s", "0.05")
    wanted = pb.SetTargetsRequest(targets=pb.Targets(slo_p99_ms=7.0))
    for expected in (100.0, 7.0):
        with (
            start_daemon(tmp_path, *flags) as daemon,
            grpc.insecure_channel(daemon.operator_address) as channel,
        ):
            stub = pb_grpc.OperatorServiceStub(channel)
            assert stub.GetTargets(pb.GetTargetsRequest(), timeout=30).slo_p99_ms == expected
            stub.SetTargets(wanted, timeout=30)
            daemon.tell(signal.SIGTERM)
            assert daemon.end() == 0
    assert list((tmp_path / "state/learned").glob("*/double,FP32,*.json"))


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
