"""The operator's commands against one daemon, each as the function that `boulton` calls."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from daemon_process import DaemonProcess, put_double, put_profile, start_daemon

from protos import boulton_pb2 as pb
from protos import boulton_pb2_grpc as pb_grpc
from server.commands.explain import decision_lines
from server.errors import ConfigError

OPERATOR = "operator-token-0123456789"
CLIENT = "client-token-0123456789"

Boulton = Callable[..., int]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("operator")


@pytest.fixture(scope="module")
def daemon(directory: Path) -> Iterator[DaemonProcess]:
    (directory / "tokens").write_text(f"client {CLIENT}\noperator {OPERATOR}\n")
    (directory / "operator").write_text(f"{OPERATOR}\n")
    (directory / "client").write_text(f"{CLIENT}\n")
    (directory / "foreign").write_text("foreign-token-0123456789\n")
    flags = ["--repository", put_double(directory / "repository"), "--decision-interval-s", "0.02"]
    flags += ["--engine", "simulated", "--gpu", put_profile(directory, 1.0)]
    with start_daemon(directory, *flags, "--operator-token-file", directory / "tokens") as daemon:
        metadata = (("authorization", f"Bearer {OPERATOR}"),)
        with grpc.insecure_channel(daemon.operator_address) as channel:
            stub = pb_grpc.OperatorServiceStub(channel)
            next(stub.WatchDecisions(pb.WatchDecisionsRequest(), metadata=metadata, timeout=30))
        yield daemon


def run(name: str, *words: str) -> int:
    command = importlib.import_module(f"server.commands.{name}")
    parser = argparse.ArgumentParser(exit_on_error=False)
    command.add_arguments(parser)
    return command.run(parser.parse_args(list(words)))


@pytest.fixture
def boulton(daemon: DaemonProcess, directory: Path) -> Iterator[Boulton]:
    """Runs a command with the operator's token; pins and pauses do not outlive the test."""

    def ask(name: str, *words: str, identity: str = "operator") -> int:
        return run(name, *words, "--url", daemon.operator_address, "--token-file", str(directory / identity))

    yield ask
    assert (ask("unpin"), ask("resume")) == (0, 0)


def test_targets_are_shown_set_and_loaded(
    boulton: Boulton, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert boulton("targets") == 0
    assert "slo_p99_ms = 100\n" in capsys.readouterr().out
    assert boulton("targets", "set", "slo_p99_ms=20", "power_cap_w=90", "form=edp") == 0
    shown = capsys.readouterr().out
    assert "slo_p99_ms = 20\n" in shown
    assert "power_cap_w = 90\n" in shown
    assert 'form = "edp"\n' in shown
    (tmp_path / "day.csv").write_text("time,price_per_kwh\n06:00,0.3\n22:00,0.1\n")
    (tmp_path / "t.toml").write_text('slo_p99_ms = 50\nenergy_price_per_kwh = "day.csv"\n')
    assert boulton("targets", "load", str(tmp_path / "t.toml")) == 0
    shown = capsys.readouterr().out
    assert "slo_p99_ms = 50\n" in shown
    assert "energy_price_per_kwh = by time of day: 0.3 from 06:00, 0.1 from 22:00\n" in shown
    assert "power_cap_w = none\n" in shown
    assert 'form = "profit"\n' in shown
    assert boulton("targets", "set", "energy_price_per_kwh=0.25", "slo_p99_ms=100") == 0


def test_the_operator_is_told_of_targets_that_a_restart_loses(
    boulton: Boulton, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, aside = directory / "state/targets", directory / "state/targets-aside"
    assert boulton("targets", "set", "slo_p99_ms=60") == 0
    assert "restart" not in capsys.readouterr().err
    kept.rename(aside)
    kept.write_text("a file where a directory should be")
    try:
        assert boulton("targets", "set", "slo_p99_ms=70") == 0
        shown = capsys.readouterr()
        assert "slo_p99_ms = 70\n" in shown.out
        assert "in force, but a restart of the server loses them" in shown.err
        assert "cannot be written" in shown.err
    finally:
        kept.unlink()
        aside.rename(kept)
    assert boulton("targets", "set", "slo_p99_ms=100") == 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["set", "slo=3"], "unknown target 'slo'; allowed are slo_p99_ms"),
        (["set", "slo_p99_ms"], "expected NAME=VALUE"),
        (["set", "slo_p99_ms="], "expected NAME=VALUE"),
        (["set"], "at least one NAME=VALUE"),
        (["set", "slo_p99_ms=fast"], "slo_p99_ms = 'fast' is not a number"),
        (["set", "slo_p99_ms=nan"], "is not a number"),
        (["set", "slo_p99_ms=1", "slo_p99_ms=2"], "given twice"),
        (["set", "energy_price_per_kwh=dear.csv"], "neither a number nor a file of prices"),
        (["load"], "takes one TOML file"),
        (["load", "absent.toml"], "absent.toml: cannot be read"),
        (["show", "slo_p99_ms=3"], "goes after `set`"),
    ],
)
def test_targets_that_make_no_sense_are_not_even_sent(words: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        run("targets", *words, "--url", "127.0.0.1:1")


def test_targets_that_the_server_refuses_change_nothing(
    boulton: Boulton, capsys: pytest.CaptureFixture[str]
) -> None:
    boulton("targets")
    before = capsys.readouterr().out
    assert boulton("targets", "set", "energy_price_per_kwh=-1", "slo_p99_ms=3") == 1
    assert "energy_price_per_kwh = -1 is not allowed" in capsys.readouterr().err
    boulton("targets")
    assert capsys.readouterr().out == before


def test_a_setting_is_pinned_and_let_go(boulton: Boulton, capsys: pytest.CaptureFixture[str]) -> None:
    assert boulton("pin", "--batch", "3", "--clock", "750", "--delay-ms", "2") == 0
    assert (
        "double on simulated-test: pinned at batch <= 3 after 2 ms at most at 750 MHz"
        in capsys.readouterr().out
    )
    assert boulton("watch", "--count", "3") == 0
    watched = capsys.readouterr().out.splitlines()
    assert len(watched) == 3
    assert watched[-1].startswith(
        "double: batch <= 3 after 2 ms at most at 750 MHz: pinned by the operator; else "
    )
    assert boulton("explain") == 0
    assert "pinned; the policy would take" in capsys.readouterr().out
    assert boulton("unpin") == 0
    assert "governed by" in capsys.readouterr().out


def test_a_default_setting_that_is_held_for_comparison_is_not_said_to_be_the_choice() -> None:
    point = pb.OperatingPoint(batch_limit=8, sm_clock_mhz=900)
    decision = pb.Decision(model="double", point=point, reason="earns the most", held_back=True)
    first = next(decision_lines(decision))
    assert "the default setting, held for comparison; the policy would take batch <= 8 at 900 MHz" in first


@pytest.mark.parametrize("words", [["--batch", "65"], ["--batch", "0"], ["--clock", "751"]])
def test_a_setting_outside_the_grid_is_refused(
    boulton: Boulton, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert boulton("pin", *words) == 1
    said = capsys.readouterr().err
    assert (
        "is not among the 192 legal settings: batch limits go from 1 to 64, clocks are 500, 750, 1000 MHz"
        in said
    )


def test_a_negative_setting_is_not_even_sent() -> None:
    with pytest.raises(ConfigError, match="negative"):
        run("pin", "--delay-ms", "-1", "--url", "127.0.0.1:1")


def test_a_setting_that_the_protocol_cannot_say_is_not_even_sent() -> None:
    with pytest.raises(ConfigError, match="as large as that"):
        run("pin", "--clock", str(2**32), "--url", "127.0.0.1:1")


def test_pause_and_resume(boulton: Boulton, capsys: pytest.CaptureFixture[str]) -> None:
    assert boulton("pause") == 0
    assert "paused" in capsys.readouterr().out
    assert boulton("resume") == 0
    assert "paused" not in capsys.readouterr().out


def test_decisions_are_explained(boulton: Boulton, capsys: pytest.CaptureFixture[str]) -> None:
    assert boulton("watch", "--count", "2") == 0
    capsys.readouterr()
    assert boulton("explain", "--last", "2") == 0
    said = capsys.readouterr().out
    assert said.count("  why  ") == 2
    assert said.count("  measured  last ") == 2
    with pytest.raises(ConfigError, match="--last must be a whole number, 1 to 600, got 0"):
        boulton("explain", "--last", "0")


def test_what_was_learned_is_shown_and_forgotten(
    boulton: Boulton, capsys: pytest.CaptureFixture[str]
) -> None:
    assert boulton("explain", "--learned") == 0
    said = capsys.readouterr().out
    assert "learned by boulton, kept in " in said
    assert "  guesses   where nothing ran" in said
    assert "it cannot tell" not in said
    assert boulton("explain", "--learned", "--json") == 0
    assert json.loads(capsys.readouterr().out)["state"]["version"] >= 1
    with pytest.raises(ConfigError, match="--json goes with --learned"):
        boulton("explain", "--json")
    assert boulton("forget") == 0
    assert capsys.readouterr().out == "the policy boulton starts anew\n"


@pytest.mark.parametrize(("token", "code"), [("foreign", "UNAUTHENTICATED"), ("client", "PERMISSION_DENIED")])
@pytest.mark.parametrize("name", ["targets", "watch", "explain", "pin", "unpin", "pause", "resume", "forget"])
def test_a_foreign_token_opens_nothing(
    boulton: Boulton, capsys: pytest.CaptureFixture[str], name: str, token: str, code: str
) -> None:
    assert boulton(name, identity=token) == 1
    assert f"answered {code}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["targets", "watch", "explain", "pin", "unpin", "pause", "resume", "forget"])
def test_where_no_server_answers(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert run(name, "--url", "127.0.0.1:1") == 1
    assert "no server answers at 127.0.0.1:1" in capsys.readouterr().err
