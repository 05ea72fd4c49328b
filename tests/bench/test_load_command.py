from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import certificates
import grpc
import pytest
from child_process import child
from PIL import Image
from scripted_server import Script, serving

from bench.load import command
from bench.load.arrivals import arrivals_of
from bench.load.plan import Closed, Poisson, Trace
from server.errors import ConfigError

QUICK = ("--model", "net", "--duration", "0.4", "--warmup", "0.1")


def arguments_of(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., tuple[int, dict]]:
    """Runs the command; gives its exit code and JSON report."""
    path = tmp_path / "report.json"

    def run(address: str, *words: str) -> tuple[int, dict]:
        code = command.run(arguments_of(*QUICK, "--url", address, "--json", str(path), *words))
        return code, json.loads(path.read_text() or "{}")

    return run


def test_a_closed_loop_reports_what_the_server_answered(load: Callable) -> None:
    script = Script()
    with serving(script) as address:
        code, report = load(address, "--closed", "4", "--batch", "3")

    assert code == 0
    assert 0 < report["requests_answered"] < len(script.messages)
    assert report["images_answered"] == 3 * report["requests_answered"]
    assert report["errors"] == {}
    assert report["latency_ms"]["p50"] <= report["latency_ms"]["max"]
    assert {tuple(request.inputs[0].shape) for request in script.requests} == {(3, 4, 4, 3)}


def test_an_open_loop_sends_what_is_due(load: Callable) -> None:
    script = Script()
    with serving(script) as address:
        code, report = load(address, "--poisson", "100", "--seed", "3")

    assert code == 0
    # The same seed, counted without a server: every request that was due in the window was sent and answered.
    plan = command.plan_from(arguments_of(*QUICK, "--poisson", "100", "--seed", "3"))
    due = [time_s for time_s, _ in arrivals_of(plan, 0, 16)]
    assert report["requests_answered"] == sum(time_s >= 0.1 for time_s in due)
    assert len(script.messages) == len(due) + 1  # and one to try


def test_a_trace_is_replayed_and_split_to_what_the_model_takes(load: Callable, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("time_s,images\n0,2\n0.05,20\n0.1,1\n")
    script = Script()
    with serving(script) as address:
        code, report = load(address, "--trace", str(trace), "--warmup", "0")

    assert code == 0
    assert (report["requests_answered"], report["images_answered"]) == (4, 23)
    assert sorted(request.inputs[0].shape[0] for request in script.requests[1:]) == [1, 2, 4, 16]


def test_several_processes_share_the_work(load: Callable) -> None:
    script = Script()
    with serving(script) as address:
        code, report = load(address, "--closed", "3", "--processes", "2")

    assert code == 0
    assert report["requests_answered"] > 0
    assert len(report["generator"]["cpu_share"]) == 2
    assert report["generator"]["max_in_flight"] == 3


@pytest.mark.parametrize("processes", ["1", "2"])
def test_shared_memory_is_registered_used_and_given_back(load: Callable, processes: str) -> None:
    script = Script()
    with serving(script) as address:
        code, report = load(address, "--shared-memory", "--closed", "2", "--processes", processes)

    assert code == 0
    assert report["requests_answered"] > 0
    assert len(set(script.ever_registered)) == int(processes)
    assert script.regions == {}
    assert {len(content) for content in script.shared} == {4 * 4 * 3}
    assert len(set(script.shared)) > 1
    assert not any(request.raw_input_contents for request in script.requests)


def test_errors_are_counted_by_status(load: Callable) -> None:
    refusal = (grpc.StatusCode.UNAVAILABLE, "queue is full")
    script = Script(fail=lambda number: refusal if number % 2 else None)
    with serving(script) as address:
        code, report = load(address, "--poisson", "200", "--slo-ms", "10000")

    assert code == 0
    assert set(report["errors"]) == {"UNAVAILABLE"}
    assert report["errors"]["UNAVAILABLE"]["message"] == "queue is full"
    failed, answered = report["images_failed"], report["images_answered"]
    assert report["late_share"] == pytest.approx(failed / (failed + answered))


def test_requests_that_are_never_answered_end_the_run_all_the_same(load: Callable) -> None:
    script = Script(fail=lambda number: script.held.clear() if number == 0 else None)
    with serving(script) as address:
        code, report = load(address, "--closed", "2", "--drain", "0.1")

    assert code == 1
    assert report["errors"]["UNANSWERED"]["requests"] == 2
    assert report["requests_answered"] == 0


def test_too_many_under_way_are_dropped(load: Callable) -> None:
    script = Script(fail=lambda number: script.held.clear() if number == 0 else None)
    with serving(script) as address:
        _, report = load(address, "--poisson", "200", "--max-in-flight", "3", "--drain", "0.1")

    assert report["errors"]["DROPPED"]["requests"] > 0
    assert len(script.messages) <= 1 + 3


def test_deadlines_reach_the_server(load: Callable) -> None:
    script = Script(fail=lambda number: script.held.clear() if number == 0 else None)
    with serving(script) as address:
        code, report = load(address, "--closed", "2", "--timeout-ms", "50")

    assert code == 1
    assert set(report["errors"]) == {"DEADLINE_EXCEEDED"}
    assert all(timeout_s <= 0.06 for timeout_s in script.timeouts_s[1:])


def test_a_server_without_model_configuration_will_do(load: Callable) -> None:
    script = Script(has_config=False)
    with serving(script) as address:
        code, _ = load(address, "--closed", "1")

    assert code == 0


def test_a_model_without_a_batch_dimension(load: Callable) -> None:
    script = Script(max_batch=0)
    with serving(script) as address:
        code, report = load(address, "--closed", "1")
        with pytest.raises(ConfigError, match="--batch 2 is over what model 'net' takes: 1"):
            load(address, "--batch", "2")

    assert code == 0
    assert report["images_answered"] == report["requests_answered"]


def test_photographs_are_sent(load: Callable, tmp_path: Path) -> None:
    photo = tmp_path / "grey.png"
    Image.new("RGB", (9, 9), (7, 8, 9)).save(photo)
    script = Script()
    with serving(script) as address:
        code, _ = load(address, "--input", str(photo))

    assert code == 0
    assert {content for request in script.requests for content in request.raw_input_contents} == {
        bytes([7, 8, 9] * 16)
    }


def test_a_token_is_sent(load: Callable, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("client abcdefghijklmnop\n")
    script = Script(token="abcdefghijklmnop")  # noqa: S106 - a test's own
    with serving(script) as address:
        assert load(address, "--token-file", str(tokens))[0] == 0
        assert load(address)[0] == 1


def test_tls(load: Callable, tmp_path: Path) -> None:
    authority = certificates.make_authority(tmp_path, "authority")
    own = certificates.make_identity(tmp_path, "server", authority)
    pair = (own.key_path.read_bytes(), own.certificate_path.read_bytes())
    with serving(Script(), grpc.ssl_server_credentials([pair])) as address:
        code, report = load(address, "--tls-ca", str(authority.certificate_path))

    assert code == 0
    assert report["requests_answered"] > 0


@pytest.mark.parametrize("processes", ["1", "2"])
def test_what_the_server_refuses_at_first_is_not_tried_again(
    load: Callable, capsys: pytest.CaptureFixture[str], processes: str
) -> None:
    refusal = (grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape")
    script = Script(fail=lambda number: refusal)
    with serving(script) as address:
        code, _ = load(address, "--processes", processes)

    assert code == 1
    assert "answered INVALID_ARGUMENT: unexpected shape" in capsys.readouterr().err
    assert len(script.messages) <= int(processes)


def test_an_unknown_model_is_the_servers_answer(load: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Script()) as address:
        assert load(address, "--model", "absent")[0] == 1

    assert "NOT_FOUND: Request for unknown model: 'absent'" in capsys.readouterr().err


@pytest.mark.parametrize("processes", ["1", "2"])
def test_ctrl_c_ends_a_run_early_with_its_report(tmp_path: Path, processes: str) -> None:
    started = threading.Event()
    script = Script(fail=lambda number: started.set() if number > 20 else None)
    path = tmp_path / "report.json"
    words = [
        "--model",
        "net",
        "--duration",
        "600",
        "--warmup",
        "0",
        "--json",
        str(path),
        "--processes",
        processes,
    ]
    boulton_load = [sys.executable, "-m", "server.cli", "load", *words]
    with (
        serving(script) as address,
        child([*boulton_load, "--url", address], stdout=subprocess.PIPE, text=True) as run,
    ):
        assert started.wait(20)
        run.send_signal(signal.SIGINT)
        printed, _ = run.communicate(timeout=60)

    assert run.returncode == 130
    assert "INTERRUPTED" in printed
    assert json.loads(path.read_text())["requests_answered"] > 0


def test_json_may_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Script()) as address:
        assert command.run(arguments_of(*QUICK, "--url", address, "--json", "-")) == 0

    printed = capsys.readouterr()
    assert json.loads(printed.out)["model"] == "net"
    assert "closed loop" in printed.err


def test_the_loop_is_closed_unless_said_otherwise() -> None:
    assert command.plan_from(arguments_of(*QUICK)).arrivals == Closed(8)
    assert command.plan_from(arguments_of(*QUICK, "--poisson", "5")).arrivals == Poisson(5.0)


def test_a_trace_brings_its_own_length(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("time_s,images\n0,1\n8,1\n")

    plan = command.plan_from(arguments_of("--model", "net", "--trace", str(path), "--warmup", "3"))
    cut = command.plan_from(arguments_of("--model", "net", "--trace", str(path), "--duration", "2"))

    assert isinstance(plan.arrivals, Trace)
    assert (plan.warmup_s, plan.duration_s) == (3.0, 5.0)
    assert (cut.warmup_s, cut.duration_s) == (0.0, 2.0)


@pytest.mark.parametrize(
    "words",
    [
        ("--closed", "0"),
        ("--closed", "1.5"),
        ("--poisson", "0"),
        ("--poisson", "-3"),
        ("--poisson", "nan"),
        ("--poisson", "inf"),
        ("--duration", "0"),
        ("--duration", "inf"),
        ("--warmup", "-1"),
        ("--slo-ms", "0"),
        ("--batch", "0"),
        ("--processes", "0"),
        ("--seed", "-1"),
        ("--closed", "1", "--poisson", "1"),
    ],
)
def test_flags_that_mean_nothing_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit):
        arguments_of("--model", "net", *words)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--closed", "2", "--processes", "3"), "more than the 2 clients"),
        (("--encoded",), "--encoded needs --input FILE"),
        (("--url", "nowhere"), "HOST:PORT"),
        (("--trace", "absent.csv"), "cannot be read"),
    ],
)
def test_contradictions_are_explained(words: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        command.plan_from(arguments_of("--model", "net", *words))


def test_a_report_that_cannot_be_written_is_known_before_the_run(tmp_path: Path) -> None:
    script = Script()
    with (
        serving(script) as address,
        pytest.raises(ConfigError, match=r"--json .* cannot be written"),
    ):
        command.run(arguments_of(*QUICK, "--url", address, "--json", str(tmp_path / "absent" / "r.json")))

    assert script.messages == []
