"""Threads of the daemon do not interrupt each other, and it starts where that cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from server.processor import prefer_throughput

SHOW = """
import os, threading
from server.processor import prefer_throughput
print(prefer_throughput())
seen = []
thread = threading.Thread(target=lambda: seen.append(os.sched_getscheduler(0)))
thread.start()
thread.join()
print(seen[0] == os.SCHED_BATCH)
"""


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux only")
def test_threads_inherit_batch_scheduling() -> None:
    shown = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, check=True)
    note, inherited = shown.stdout.splitlines()
    assert "SCHED_BATCH" in note
    assert inherited == "True"


def test_a_refusal_is_a_note_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("not here")

    monkeypatch.setattr(os, "sched_setscheduler", refuse, raising=False)
    assert "not here" in prefer_throughput()
