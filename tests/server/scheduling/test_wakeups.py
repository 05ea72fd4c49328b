from __future__ import annotations

import asyncio

from server.scheduling.wakeups import Wakeups

SOON_S = 0.01
NEVER_S = 60.0


class Calls:
    """Counts them, and can be waited for."""

    def __init__(self) -> None:
        self.count = 0
        self.wakeups = Wakeups(self.call)
        self._called = asyncio.Event()

    def call(self) -> None:
        self.count += 1
        self._called.set()

    async def next(self) -> None:
        async with asyncio.timeout(30.0):
            await self._called.wait()
        self._called.clear()


async def started() -> Calls:
    calls = Calls()
    calls.wakeups.start(asyncio.get_running_loop())
    return calls


async def test_what_is_asked_for_many_times_in_a_round_is_called_once() -> None:
    calls = await started()
    for _ in range(3):
        calls.wakeups.soon()
    assert calls.wakeups.due
    assert not calls.count
    await asyncio.sleep(SOON_S)
    assert calls.count == 1
    assert not calls.wakeups.due


async def test_it_is_called_after_a_while() -> None:
    calls = await started()
    calls.wakeups.after(SOON_S)
    await calls.next()
    assert calls.count == 1


async def test_an_earlier_timer_takes_the_place_of_a_later_one() -> None:
    calls = await started()
    calls.wakeups.after(NEVER_S)
    calls.wakeups.after(SOON_S)
    await calls.next()
    assert calls.count == 1


async def test_a_later_timer_does_not_take_the_place_of_an_earlier_one() -> None:
    calls = await started()
    calls.wakeups.after(SOON_S)
    calls.wakeups.after(NEVER_S)
    await calls.next()
    calls.wakeups.after(SOON_S)
    await calls.next()
    assert calls.count == 2


async def test_nothing_is_called_before_the_start_nor_after_the_stop() -> None:
    early = Calls()
    early.wakeups.soon()
    early.wakeups.after(0.0)
    late = await started()
    late.wakeups.soon()
    late.wakeups.after(0.0)
    late.wakeups.stop()
    late.wakeups.soon()
    late.wakeups.after(0.0)
    await asyncio.sleep(SOON_S)
    assert not early.count
    assert not late.count
