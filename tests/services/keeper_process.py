"""`boulton keeper` as a process of its own, on a rack of simulated cards, and raw clients to vex it with."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from child_process import child
from nvml_rack import Rack, rack_env

from optimizer.devices.keeper.protocol import VERSION

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 30.0
LISTENING = "listening on"


def eventually(holds: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Wait until something holds; how long it may take is no part of what is tested."""
    give_up_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < give_up_s, f"not within {timeout_s} s: {what}"
        time.sleep(0.005)


@dataclass
class KeeperHome:
    """Where a keeper lives, whichever process it is now. `log` collects the stderr of all of them."""

    rack: Rack
    directory: Path
    flags: Sequence[str | Path] = ()
    log: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None
    _readers: list[threading.Thread] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        return self.directory / "keeper.sock"

    @property
    def state_dir(self) -> Path:
        return self.directory / "state"

    @property
    def text(self) -> str:
        return "".join(self.log)

    def command(self) -> list[str]:
        flags = ["--socket", self.socket, "--state-dir", self.state_dir, *self.flags]
        if "--gpu" not in self.flags and "--config" not in self.flags:
            flags += [f"--gpu={self.rack.uuid(card)}" for card in range(len(self.rack))]
        return [sys.executable, "-m", "server.cli", "keeper", *map(str, flags)]

    def launch(self) -> subprocess.Popen[str]:
        """Start a keeper without waiting for it."""
        process = subprocess.Popen(
            self.command(), env=rack_env(self.rack), stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        reader = threading.Thread(target=lambda: self.log.extend(process.stderr or ()), daemon=True)
        reader.start()
        self._readers.append(reader)
        self.process = process
        return process

    def start(self) -> None:
        """Start a keeper and wait until it listens."""
        before = self.text.count(LISTENING)
        process = self.launch()
        eventually(
            lambda: self.text.count(LISTENING) > before or process.poll() is not None,
            f"the keeper listens:\n{self.text}",
            START_TIMEOUT_S,
        )
        assert process.poll() is None, self.text

    def tell(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for its end and return the exit code; all of its log is there then."""
        assert self.process is not None
        code = self.process.wait(END_TIMEOUT_S)
        self._readers[-1].join(END_TIMEOUT_S)
        return code

    def kill(self) -> None:
        self.tell(signal.SIGKILL)
        self.end()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        if self.process is not None and self.process.stderr is not None:
            self.process.stderr.close()

    def default(self, card: int = 0) -> bool:
        return self.rack.card(card).is_default

    def wait_default(self, card: int = 0) -> None:
        eventually(lambda: self.default(card), f"card {card} is as it was:\n{self.text}")

    def markers(self) -> list[str]:
        return sorted(path.name for path in self.state_dir.glob("*.json"))


@contextmanager
def keeper_home(rack: Rack, *flags: str | Path) -> Iterator[KeeperHome]:
    """A short directory that other users may look into; no keeper runs in it afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="keeper-", dir="/tmp"))
    directory.chmod(0o755)
    home = KeeperHome(rack, directory, flags)
    try:
        yield home
    finally:
        home.close()
        shutil.rmtree(directory)


class RawClient:
    """Says to a keeper whatever it is told to, byte for byte."""

    def __init__(self, path: Path, timeout_s: float = 30.0) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout_s)
        self.socket.connect(str(path))
        self._received = b""

    def send(self, line: bytes) -> None:
        self.socket.sendall(line)

    def answer(self) -> dict[str, object] | None:
        """The next answer; None when the keeper has hung up."""
        while b"\n" not in self._received:
            try:
                received = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not received:
                return None
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    def ask(self, op: str, **values: object) -> dict[str, object] | None:
        self.send(json.dumps({"op": op} | values).encode() + b"\n")
        return self.answer()

    def hold(self, uuid: str, sm_clock_mhz: int) -> None:
        """Greet, acquire as soon as the GPU has been given back, set."""
        assert (self.ask("hello", version=VERSION) or {})["ok"]
        eventually(lambda: bool((self.ask("acquire", uuid=uuid) or {})["ok"]), "the GPU can be had")
        assert (self.set(sm_clock_mhz) or {})["ok"]

    def set(self, sm_clock_mhz: int | None, **others: object) -> dict[str, object] | None:
        axes = {"sm_clock_mhz": sm_clock_mhz, "memory_clock_mhz": None, "power_limit_w": None}
        return self.ask("set", **axes | others)

    def close(self) -> None:
        self.socket.close()


HOLDER = """
import sys, time
from pathlib import Path
from optimizer.devices.keeper.client import KeeperClient
from optimizer.devices.nvml.actuator import GpuSetting
socket, uuid, clock, then = sys.argv[1:]
client = KeeperClient(Path(socket), uuid, timeout_s=30.0)
client.set(GpuSetting(int(clock)))
print("held", flush=True)
exec(then)
time.sleep(600)
"""


@contextmanager
def holder(home: KeeperHome, card: int, clock_mhz: int, then: str = "") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a card by `KeeperClient`, does `then`, and sleeps."""
    words = [sys.executable, "-c", HOLDER, home.socket, home.rack.uuid(card), str(clock_mhz), then]
    with child(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n", home.text
        yield process
