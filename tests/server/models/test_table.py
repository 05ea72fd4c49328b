"""The table of loaded models: load, swap, unload, and what they do to requests under way."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from answering import answered

from server.errors import Internal, InvalidArgument, NotFound, RequestError, Unavailable
from server.models.repository import ModelEntry, Repository
from server.models.table import ModelTable, parse_version
from server.scheduling.scheduler import SchedulerSettings


@dataclass
class Loaded:
    table: ModelTable
    gate: object
    root: Path


@pytest.fixture
async def loaded(tiny: ModuleType, root: Path) -> AsyncIterator[Loaded]:
    gate = tiny.Gate()
    table = ModelTable(
        Repository(root), gate.make_engine, SchedulerSettings(batch_limit=4), drain_timeout_s=10.0
    )
    yield Loaded(table, gate, root)
    gate.open.set()
    await table.close(10.0)


def ones(images: int = 1) -> tuple[np.ndarray, ...]:
    return (np.ones((images, 2), np.float32),)


async def infer_gate(table: ModelTable) -> np.ndarray:
    """What the pipeline does: hold the version, then ask its scheduler."""
    service = table.get("gate")
    with service:
        answer = await answered(service.scheduler, ones(), 1, nbytes=8)
    return answer.outputs[0]


async def running(engine: object) -> None:
    assert await asyncio.to_thread(engine.running.wait, 10)


class TestGet:
    async def test_the_newest_version_is_loaded(self, loaded: Loaded) -> None:
        await loaded.table.load("colour")
        assert loaded.table.get("colour").spec.version == 2
        assert loaded.table.get("colour", "2") is loaded.table.get("colour")

    async def test_another_version_is_not_found(self, loaded: Loaded) -> None:
        await loaded.table.load("colour")
        with pytest.raises(NotFound, match="'colour' version 1 is not found"):
            loaded.table.get("colour", "1")

    async def test_an_older_version_may_be_asked_for(self, loaded: Loaded) -> None:
        await loaded.table.load("colour", 1)
        assert loaded.table.ready("colour", "1")
        assert not loaded.table.ready("colour", "2")

    async def test_a_model_that_is_not_loaded_is_unknown(self, loaded: Loaded) -> None:
        with pytest.raises(NotFound, match=r"^Request for unknown model: 'pair' is not found$"):
            loaded.table.get("pair")
        assert not loaded.table.ready("pair")

    @pytest.mark.parametrize(
        "version", ["one", "-1", "+1", "1.0", "1_0", " 1", "٣", "../1", "1" * 400, "1\n"]
    )
    def test_a_version_is_a_plain_integer(self, version: str) -> None:
        with pytest.raises(InvalidArgument, match="version must be a positive integer"):
            parse_version(version)


class TestLoad:
    async def test_an_unknown_model(self, loaded: Loaded) -> None:
        with pytest.raises(NotFound, match=r"^Request for unknown model: 'absent' is not found"):
            await loaded.table.load("absent")

    @pytest.mark.parametrize(
        "name", ["", ".", "..", "../colour", "/etc", "a/b", "a\\b", "a\0b", "a\r\nb", "x" * 300]
    )
    async def test_a_name_cannot_lead_elsewhere(self, loaded: Loaded, name: str) -> None:
        with pytest.raises(InvalidArgument):
            await loaded.table.load(name)
        with pytest.raises(InvalidArgument):
            await loaded.table.unload(name)

    async def test_a_corrupt_network_is_refused_by_name(self, tiny: ModuleType, loaded: Loaded) -> None:
        tiny.put_model(loaded.root, "broken", 1, b"this is no protobuf")
        with pytest.raises(Internal, match="failed to load 'broken'"):
            await loaded.table.load("broken")
        assert not loaded.table.ready("broken")

    async def test_a_failed_reload_keeps_the_old_version_serving(
        self, tiny: ModuleType, loaded: Loaded
    ) -> None:
        before = await loaded.table.load("pair")
        tiny.put_model(loaded.root, "pair", 2, b"this is no protobuf")
        with pytest.raises(Internal, match="keeps serving"):
            await loaded.table.load("pair")
        assert loaded.table.get("pair") is before
        values = np.ones((1, 4), np.float32)
        answer = await answered(before.scheduler, (values, values), 1, nbytes=32)
        assert answer.outputs[0].tolist() == [[2, 2, 2, 2]]

    async def test_a_reload_swaps_and_closes_the_old_engine(self, loaded: Loaded) -> None:
        loaded.gate.open.set()
        old = await loaded.table.load("gate")
        new = await loaded.table.load("gate")
        assert loaded.table.get("gate") is new is not old
        await old.scheduler.wait_closed()
        assert [engine.closed for engine in loaded.gate.engines] == [True, False]

    async def test_a_request_finishes_on_the_version_that_it_holds(self, loaded: Loaded) -> None:
        await loaded.table.load("gate")
        request = asyncio.create_task(infer_gate(loaded.table))
        first = loaded.gate.engines[0]
        await running(first)
        await loaded.table.load("gate")
        assert not first.closed
        loaded.gate.open.set()
        assert (await request).tolist() == [[1, 1]]
        assert loaded.gate.engines[1].batches == []

    async def test_a_holder_that_has_not_reached_the_scheduler_is_waited_for(self, loaded: Loaded) -> None:
        loaded.gate.open.set()
        service = await loaded.table.load("gate")
        with service:
            await loaded.table.load("gate")
            answer = await answered(service.scheduler, ones(), 1, nbytes=8)
        assert answer.outputs[0].tolist() == [[1, 1]]

    async def test_cancelling_the_caller_does_not_stop_a_load(self, loaded: Loaded) -> None:
        task = asyncio.create_task(loaded.table.load("pair"))
        await asyncio.sleep(0)  # let it begin
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await loaded.table.load("pair")  # waits its turn behind the first
        assert loaded.table.ready("pair")

    async def test_the_limit_is_that_of_the_model(self, loaded: Loaded) -> None:
        service = await loaded.table.load("pair")
        assert service.spec.max_batch == 8
        assert (await loaded.table.load("whole")).spec.max_batch == 0

    async def test_too_many_operations_are_turned_away(self, loaded: Loaded) -> None:
        loads = [asyncio.create_task(loaded.table.load("pair")) for _ in range(80)]
        results = await asyncio.gather(*loads, return_exceptions=True)
        refused = [result for result in results if isinstance(result, Unavailable)]
        assert len(refused) == 80 - 64
        assert loaded.table.ready("pair")


class TestUnload:
    async def test_it_is_gone_and_its_engine_closed(self, loaded: Loaded) -> None:
        await loaded.table.load("gate")
        await loaded.table.unload("gate")
        assert not loaded.table.ready("gate")
        assert loaded.gate.engines[0].closed

    async def test_requests_under_way_are_finished(self, tiny: ModuleType, loaded: Loaded) -> None:
        await loaded.table.load("gate")
        request = asyncio.create_task(infer_gate(loaded.table))
        await running(loaded.gate.engines[0])
        unload = asyncio.create_task(loaded.table.unload("gate"))
        await tiny.until(lambda: not loaded.table.ready("gate"))
        assert not unload.done()
        loaded.gate.open.set()
        assert (await request).tolist() == [[1, 1]]
        await unload

    async def test_twice_is_no_error(self, loaded: Loaded) -> None:
        await loaded.table.load("pair")
        await loaded.table.unload("pair")
        await loaded.table.unload("pair")

    async def test_an_unknown_model(self, loaded: Loaded) -> None:
        with pytest.raises(NotFound, match="unknown model: 'absent'"):
            await loaded.table.unload("absent")

    async def test_a_hanging_request_is_given_up(self, tiny: ModuleType, root: Path) -> None:
        gate = tiny.Gate()
        settings = SchedulerSettings(batch_limit=4)
        table = ModelTable(Repository(root), gate.make_engine, settings, drain_timeout_s=0.05)
        await table.load("gate")
        request = asyncio.create_task(infer_gate(table))
        await running(gate.engines[0])
        await table.unload("gate")
        with pytest.raises(RequestError):
            await request
        gate.open.set()

    async def test_load_unload_and_infer_at_once(self, loaded: Loaded) -> None:
        loaded.gate.open.set()
        await loaded.table.load("gate")
        answered, missing = 0, 0

        async def client() -> None:
            nonlocal answered, missing
            for _ in range(40):
                try:
                    assert (await infer_gate(loaded.table)).tolist() == [[1, 1]]
                    answered += 1
                except NotFound:
                    missing += 1
                    await asyncio.sleep(0)

        async def operator() -> None:
            for _ in range(6):
                await loaded.table.load("gate")
                await loaded.table.unload("gate")
            await loaded.table.load("gate")

        await asyncio.gather(*(client() for _ in range(8)), operator(), operator())
        assert answered > 0
        assert answered + missing == 8 * 40
        assert (await infer_gate(loaded.table)).tolist() == [[1, 1]]
        assert await loaded.table.close(10.0)
        assert all(engine.closed for engine in loaded.gate.engines)


async def test_reloading_leaks_neither_threads_nor_descriptors(tiny: ModuleType, loaded: Loaded) -> None:
    def held() -> tuple[int, int]:
        engines = [thread for thread in threading.enumerate() if thread.name == "boulton-engine"]
        return len(engines), len(list(Path("/proc/self/fd").iterdir()))

    await loaded.table.load("pair")
    before = held()
    for _ in range(10):
        replaced = loaded.table.get("pair")
        await loaded.table.load("pair")
        await replaced.scheduler.wait_closed()
    await tiny.until(lambda: held() == before)


class TestIndex:
    async def test_every_version_with_its_state(self, loaded: Loaded) -> None:
        await loaded.table.load("colour")
        index = await loaded.table.index()
        states = {(entry.name, entry.version): entry.state for entry in index}
        assert states == {
            ("colour", 1): "UNAVAILABLE",
            ("colour", 2): "READY",
            ("gate", 1): "UNAVAILABLE",
            ("pair", 1): "UNAVAILABLE",
            ("whole", 7): "UNAVAILABLE",
        }

    async def test_what_comes_and_goes_is_neither_ready_nor_unavailable(
        self, tiny: ModuleType, root: Path
    ) -> None:
        gate, may_load, state = tiny.Gate(), threading.Event(), ""

        def make_slowly(entry: ModelEntry) -> object:
            assert may_load.wait(30)
            return gate.make_engine(entry)

        async def is_state(wanted: str) -> None:
            nonlocal state
            while state != wanted:
                (entry,) = [entry for entry in await table.index() if entry.name == "gate"]
                state = entry.state

        table = ModelTable(Repository(root), make_slowly, SchedulerSettings(batch_limit=4))
        async with asyncio.timeout(30):
            loading = asyncio.create_task(table.load("gate"))
            await is_state("LOADING")
            assert await table.index(only_ready=True) == []
            may_load.set()
            await loading
            await is_state("READY")
            request = asyncio.create_task(infer_gate(table))
            await running(table.get("gate").engine)
            unloading = asyncio.create_task(table.unload("gate"))
            await is_state("UNLOADING")
            gate.open.set()
            await asyncio.gather(request, unloading)
            await is_state("UNAVAILABLE")
        await table.close(10.0)

    async def test_only_what_is_ready(self, loaded: Loaded) -> None:
        await loaded.table.load("whole")
        (entry,) = await loaded.table.index(only_ready=True)
        assert (entry.name, entry.version, entry.state) == ("whole", 7, "READY")

    async def test_why_a_load_failed(self, tiny: ModuleType, loaded: Loaded) -> None:
        tiny.put_model(loaded.root, "broken", 1, b"this is no protobuf")
        with pytest.raises(Internal):
            await loaded.table.load("broken")
        reasons = {entry.name: entry.reason for entry in await loaded.table.index()}
        assert "broken" in reasons["broken"]
        assert reasons["pair"] == "not loaded"

    async def test_a_loaded_model_that_left_the_disk_is_still_listed(self, loaded: Loaded) -> None:
        await loaded.table.load("whole")
        shutil.rmtree(loaded.root / "whole")
        entries = [entry for entry in await loaded.table.index() if entry.name == "whole"]
        assert [(entry.version, entry.state) for entry in entries] == [(7, "READY")]


class TestSnapshots:
    async def test_what_metrics_see(self, loaded: Loaded) -> None:
        await loaded.table.load("pair")
        service = loaded.table.get("pair")
        values = np.ones((3, 4), np.float32)
        await answered(service.scheduler, (values, values), 3, nbytes=96)
        (snapshot,) = loaded.table.snapshots()
        assert (snapshot.name, snapshot.version, snapshot.max_batch) == ("pair", 1, 8)
        assert (snapshot.batch_limit, snapshot.queued_images, snapshot.simulated) == (4, 0, False)
        assert snapshot.statistics.inference_count == 3


async def test_after_close_nothing_is_loaded_any_more(loaded: Loaded) -> None:
    await loaded.table.load("pair")
    assert await loaded.table.close(10.0)
    with pytest.raises(Unavailable, match="shutting down"):
        await loaded.table.load("pair")
    assert loaded.table.snapshots() == ()
