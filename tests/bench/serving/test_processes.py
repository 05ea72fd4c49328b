from __future__ import annotations

import json
import os
import select
import sys
from pathlib import Path

import pytest

from bench.serving.processes import Server, ServerFailed, family, port_in, running

# Writes its ready file, starts a child, and waits until it is told to end.
PARENT = """
import json, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
path = pathlib.Path(sys.argv[1])
path.with_suffix(".part").write_text(json.dumps({"grpc_port": 1234, "child": child.pid}))
path.with_suffix(".part").rename(path)
time.sleep(60)
"""

SHARED_BYTES = 200 << 20
SHARING = f"""
import json, mmap, os, sys, time
shared = mmap.mmap(-1, {SHARED_BYTES})
ready, done = os.pipe()
for _ in range(3):
    if not os.fork():
        shared[:] = bytes(len(shared))
        os.write(done, b".")
        time.sleep(60)
for _ in range(3):
    os.read(ready, 1)
open(sys.argv[1], "w").write(json.dumps(dict(grpc_port=1234)))
time.sleep(60)
"""


def _ends(pidfd: int) -> bool:
    """Wait until the process has ended; False if it does not within ten seconds."""
    readable, _, _ = select.select([pidfd], [], [], 10.0)
    os.close(pidfd)
    return bool(readable)


def test_a_server_runs_while_the_block_does_and_its_children_end_with_it(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    with running("parent", [sys.executable, "-c", PARENT, str(ready)], port_in(ready)) as server:
        child = json.loads(ready.read_text(encoding="utf-8"))["child"]
        assert server.url == "127.0.0.1:1234"
        assert set(family(server.pid)) == {server.pid, child}
        assert server.resident_bytes() > 0
        assert server.descriptors() >= 3
        assert server.cpu_s() >= 0
        processes = [os.pidfd_open(server.pid), os.pidfd_open(child)]
    assert [_ends(process) for process in processes] == [True, True]


def test_memory_that_processes_share_counts_once(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    with running("sharing", [sys.executable, "-c", SHARING, str(ready)], port_in(ready)) as server:
        assert SHARED_BYTES < server.resident_bytes() < 2 * SHARED_BYTES


def test_a_server_that_ends_early_is_reported_with_its_last_words() -> None:
    command = [sys.executable, "-c", "print('no such model'); raise SystemExit(3)"]
    with (
        pytest.raises(ServerFailed, match=r"broken: exited 3(.|\n)*no such model"),
        running("broken", command, lambda: None),
    ):
        pytest.fail("it never became ready")


def test_a_pinned_server_sees_only_its_cores(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    ready = tmp_path / "ready.json"
    with running("parent", [sys.executable, "-c", PARENT, str(ready)], port_in(ready), cpus=[core]) as server:
        assert os.sched_getaffinity(server.pid) == {core}


def test_a_process_that_is_gone_has_used_no_cpu_time() -> None:
    assert Server("gone", 2**22 + 1, "127.0.0.1:1").cpu_s() == 0.0


def test_a_half_written_ready_file_is_not_ready(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    assert port_in(ready)() is None
    ready.write_text('{"grpc_po', encoding="utf-8")
    assert port_in(ready)() is None
