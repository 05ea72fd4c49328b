"""Servers as child processes: started until ready, watched through /proc, ended with all their children."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

START_LIMIT_S = 120.0
STOP_LIMIT_S = 40.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class ServerFailed(Exception):
    """A server did not start; the message ends with the last lines that it printed."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: the process that was started, and where its gRPC port is."""

    name: str
    pid: int
    url: str

    def cpu_s(self) -> float:
        """CPU time that the process and its living descendants have used, in seconds."""
        return sum(_cpu_s(pid) for pid in family(self.pid))

    def resident_bytes(self) -> int:
        """Resident memory of the process and its living descendants; shared memory counts once."""
        return sum(_resident_bytes(pid) for pid in family(self.pid))

    def descriptors(self) -> int:
        """Open file descriptors of the process and its living descendants."""
        return sum(1 for pid in family(self.pid) for _ in Path(f"/proc/{pid}/fd").iterdir())


def family(pid: int) -> list[int]:
    """Return the process and all its living descendants."""
    parents: dict[int, int] = {}
    for name in (entry.name for entry in Path("/proc").iterdir()):
        fields = _stat(int(name)) if name.isdigit() else None
        if fields:
            parents[int(name)] = int(fields[1])
    found = [pid]
    for known in found:
        found.extend(child for child, parent in parents.items() if parent == known)
    return found


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third (state) on; None when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S if fields else 0.0


def _resident_bytes(pid: int) -> int:
    """Resident memory of a process, of shared memory its share alone; 0 when the process is gone.

    Not so of files: who else maps a library at that time has nothing to do with the process.
    """
    try:
        share = _kib(f"/proc/{pid}/smaps_rollup")["Pss_Shmem"]
        status = _kib(f"/proc/{pid}/status")
        return (status["RssAnon"] + status["RssFile"] + share) << 10
    except (OSError, KeyError):
        return 0


def _kib(path: str) -> dict[str, int]:
    """Lines such as `RssAnon: 12 kB`."""
    lines = [line.split() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return {words[0].rstrip(":"): int(words[1]) for words in lines if words[-1:] == ["kB"]}


def free_port() -> int:
    """Return a port that is free now, for servers that cannot be given port 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    find_port: Callable[[], int | None],
    *,
    cpus: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[Server]:
    """Start a server, wait until `find_port` knows its port, and end it and its children afterwards.

    Args:
        name: what the tables call it.
        command: program and arguments.
        find_port: asked again and again; None while the server is not ready.
        cpus: cores that it may use; empty for all.
        environment: variables added to ours.
        cwd: working directory.

    Raises:
        ServerFailed: it ended, or was not ready in two minutes.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            _pinned(command, cpus),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
            cwd=cwd,
        )
        try:
            yield Server(name, process.pid, f"127.0.0.1:{_await_port(process, find_port)}")
        except _NotReady as error:
            log.seek(0)
            last = "\n".join(log.read().decode("utf-8", "replace").splitlines()[-15:])
            raise ServerFailed(f"{name}: {error}\n{last}") from None
        finally:
            _end(process)


class _NotReady(Exception):
    pass


def _pinned(command: Sequence[str], cpus: Sequence[int]) -> list[str]:
    """Pinned before the program starts, so that libraries that count cores see the right number."""
    if not cpus:
        return list(command)
    pin = f"import os, sys; os.sched_setaffinity(0, {list(cpus)}); os.execvp(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", pin, *command]


def _await_port(process: subprocess.Popen[bytes], find_port: Callable[[], int | None]) -> int:
    end_s = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end_s:
        port = find_port()
        if port is not None:
            return port
        if process.poll() is not None:
            raise _NotReady(f"exited {process.returncode} before it was ready")
        time.sleep(0.05)
    raise _NotReady(f"was not ready after {START_LIMIT_S:g} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_LIMIT_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def port_in(ready_file: Path, name: str = "grpc_port") -> Callable[[], int | None]:
    """Return a `find_port` that reads a port from the JSON file of a server that is ready."""

    def find() -> int | None:
        try:
            return int(json.loads(ready_file.read_text(encoding="utf-8"))[name])
        except (OSError, ValueError):
            return None

    return find
