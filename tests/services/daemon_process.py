"""`boulton serve` as a process of its own, with small models and, where wanted, a slow simulated GPU."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import TensorProto, helper

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 60.0
FREE_PORTS = ("--port", "0", "--metrics-port", "0", "--operator-port", "0")


@dataclass
class DaemonProcess:
    """A running daemon. `log` collects its stderr, line by line."""

    process: subprocess.Popen[str]
    ready_line: str
    grpc_port: int
    metrics_port: int | None
    operator_port: int
    log: list[str]
    reader: threading.Thread = field(repr=False)

    @property
    def operator_address(self) -> str:
        return f"127.0.0.1:{self.operator_port}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for the end and return the exit code; all of the log is there then."""
        code = self.process.wait(END_TIMEOUT_S)
        self.reader.join(END_TIMEOUT_S)
        return code

    @property
    def text(self) -> str:
        return "\n".join(self.log)


def command(*flags: str | Path) -> list[str]:
    return [sys.executable, "-m", "server.cli", "serve", *map(str, flags)]


@contextmanager
def start_daemon(directory: Path, *flags: str | Path) -> Iterator[DaemonProcess]:
    """Start a daemon on free ports and wait until it says that it is ready; kill it at the end if need be."""
    ready = directory / "ready.json"
    process = subprocess.Popen(
        command(*FREE_PORTS, "--state-dir", directory / "state", "--ready-file", ready, *flags),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log: list[str] = []
    reader = threading.Thread(target=lambda: log.extend(process.stderr), daemon=True)
    reader.start()
    watchdog = threading.Timer(START_TIMEOUT_S, process.kill)
    watchdog.start()
    try:
        ready_line = process.stdout.readline()
        watchdog.cancel()
        if not ready_line:
            process.wait(END_TIMEOUT_S)
            reader.join(END_TIMEOUT_S)
            raise AssertionError(f"the daemon did not start:\n{''.join(log)}")
        facts = json.loads(ready.read_text())
        ports = (facts["grpc_port"], facts["metrics_port"], facts["operator_port"])
        yield DaemonProcess(process, ready_line, *ports, log, reader)
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.kill()
        process.wait(END_TIMEOUT_S)
        reader.join(END_TIMEOUT_S)
        process.stdout.close()
        process.stderr.close()


def double_model(size: int = 4) -> onnx.ModelProto:
    """`x` FP32 [n, size] to `y` = 2 x."""
    shape = ("batch", size)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def put_double(repository: Path, name: str = "double", version: int = 1) -> Path:
    """Put the model into a repository; return the repository."""
    directory = repository / name / str(version)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.onnx").write_bytes(double_model().SerializeToString())
    return repository


def put_profile(directory: Path, batch_ms: float) -> Path:
    """Write a GPU profile whose model `double` takes `batch_ms` a batch at 1000 MHz, twice that at 500."""
    rows = [
        f"{batch},{clock},{batch_ms * 1000 / clock},{20 + 30 * clock / 1000}"
        for batch in (1, 64)
        for clock in (500, 1000)
    ]
    (directory / "double.csv").write_text("batch,sm_clock_mhz,latency_ms,power_w\n" + "\n".join(rows) + "\n")
    path = directory / "gpu.toml"
    path.write_text(
        'name = "test"\nsource = "made up for a test"\nsm_clocks_mhz = [500, 750, 1000]\n'
        "boost_clock_mhz = 1000\npower_limit_w = 100\nidle_power_w = 10\nclock_switch_s = [0.0, 0.0]\n"
        "power_sensor = { period_s = 0.01, window_s = 0.01 }\nenergy_counter_period_s = 0.01\n"
        '[models.double]\nsurface = "double.csv"\n'
    )
    return path
