from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from server.governing.governor_thread import GovernorThread

HANGS = """
import asyncio, threading
from server.governing.governor_thread import GovernorThread

async def main():
    GovernorThread().call(threading.Event().wait)
    print("the loop goes on", flush=True)

asyncio.run(main())
"""


async def test_functions_run_one_after_the_other_in_one_thread() -> None:
    thread, order = GovernorThread(), []
    where = await asyncio.gather(
        *(thread.call(lambda n=n: (order.append(n), threading.get_ident())[1]) for n in range(9))
    )
    thread.close()
    assert order == list(range(9))
    assert len(set(where)) == 1
    assert threading.get_ident() not in where


async def test_errors_are_passed_on_and_the_thread_goes_on() -> None:
    thread = GovernorThread()
    with pytest.raises(ZeroDivisionError):
        await thread.call(lambda: 1 // 0)
    assert await thread.call(lambda: 7) == 7
    thread.close()


async def test_who_stops_waiting_stops_nothing() -> None:
    thread, go_on, done = GovernorThread(), threading.Event(), []
    abandoned = thread.call(lambda: (go_on.wait(30), done.append(1)))
    abandoned.cancel()
    go_on.set()
    assert await thread.call(lambda: list(done)) == [1]
    thread.close()


def test_a_function_that_hangs_does_not_keep_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "the loop goes on\n"), done.stderr
