from __future__ import annotations

import asyncio
import time

import pytest

from bench.load.pacing import Pacer, SleepPacer, TimerfdPacer, make_pacer


@pytest.fixture(params=["best", "sleep"])
async def pacer(request: pytest.FixtureRequest) -> Pacer:
    pacer = make_pacer() if request.param == "best" else SleepPacer()
    yield pacer
    pacer.close()


async def test_nobody_is_woken_early(pacer: Pacer) -> None:
    for delay_s in (0.0001, 0.001, 0.0123):
        when_s = time.monotonic() + delay_s
        await pacer.until(when_s)
        assert time.monotonic() >= when_s - 0.001  # the loop's own timers round to a millisecond


async def test_the_kernel_timer_is_exact_to_the_early_side() -> None:
    pacer = make_pacer()
    if not isinstance(pacer, TimerfdPacer):
        pytest.skip("this machine has no timerfd")
    for _ in range(20):
        when_s = time.monotonic() + 0.0005
        await pacer.until(when_s)
        assert time.monotonic() >= when_s
    pacer.close()


async def test_who_is_behind_still_lets_others_run(pacer: Pacer) -> None:
    ran = []
    task = asyncio.create_task(_note(ran))

    await pacer.until(time.monotonic() - 1.0)
    await pacer.until(time.monotonic() - 1.0)

    assert ran == ["ran"]
    await task


async def _note(ran: list[str]) -> None:
    ran.append("ran")


async def test_a_cancelled_wait_leaves_the_pacer_usable(pacer: Pacer) -> None:
    waiting = asyncio.create_task(pacer.until(time.monotonic() + 60.0))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    when_s = time.monotonic() + 0.002
    await pacer.until(when_s)

    assert time.monotonic() >= when_s - 0.001
