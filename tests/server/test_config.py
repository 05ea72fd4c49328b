from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

import pytest

from server.config import OPTIONS, Settings, add_arguments, settings_from
from server.errors import ConfigError


def parse(*argv: str) -> Settings:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_arguments(parser)
    return settings_from(parser.parse_args(argv))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "boulton.toml"


def test_every_setting_has_a_flag_and_every_flag_a_setting() -> None:
    assert set(OPTIONS) == {setting.name for setting in fields(Settings)}


def test_what_is_left_out_keeps_its_default() -> None:
    assert parse("--repository", "models") == Settings(repository=Path("models"))


def test_flags_of_every_kind() -> None:
    settings = parse(
        *("--repository", "m", "--model", "a", "--model", "b", "--port", "0", "--max-delay-ms", "2.5"),
        *("--no-metrics", "--engine", "simulated", "--gpu", "v100", "--log-format", "json"),
    )
    assert settings == Settings(
        repository=Path("m"),
        model=("a", "b"),
        port=0,
        max_delay_ms=2.5,
        no_metrics=True,
        engine="simulated",
        gpu="v100",
        log_format="json",
    )


def test_a_file_gives_settings_and_flags_win(config: Path) -> None:
    config.write_text('repository = "m"\nport = 9000\nmax-batch = 8\nshared_memory = true\nmodel = ["a"]\n')
    assert parse("--config", str(config), "--port", "9001") == Settings(
        repository=Path("m"), port=9001, max_batch=8, shared_memory=True, model=("a",)
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "70000"], "--port must be a whole number, 0 to 65535, got '70000'"),
        (["--port", "http"], "--port must be a whole number"),
        (["--targets", "~nobody-of-that-name/targets"], "--targets must be a path"),
        (["--max-batch", "0"], "--max-batch must be a whole number, 1 to 4096"),
        (["--max-queue-images", "0"], "1 or more"),
        (["--max-delay-ms", "-1"], "--max-delay-ms must be a number of at least 0"),
        (["--max-delay-ms", "nan"], "--max-delay-ms must be a number"),
        (["--drain-timeout-s", "inf"], "--drain-timeout-s must be a number"),
        (["--engine", "magic"], "--engine must be one of onnxruntime,"),
        (["--model", "a", "--model", "a"], "a list of different names"),
        (["--host", ""], "--host must be a text that is not empty"),
        (["--engine", "simulated"], "--engine simulated needs --gpu"),
        (["--gpu", "v100"], "--gpu needs --engine simulated, got --engine onnxruntime"),
        (["--predictor", "a100", "--no-govern"], "--predictor and --no-govern contradict each other"),
        (["--predictor", "a100", "--policy", "fixed"], "--predictor and --policy fixed contradict"),
        (["--simulated-model", "x"], "--simulated-model needs --engine simulated"),
        (["--batch-limit", "9", "--max-batch", "8"], "--batch-limit 9 is over --max-batch 8"),
        (["--served-batches", "8,1"], "--served-batches must be ascending whole numbers, as in 1,8,32"),
        (["--served-batches", "1,1"], "ascending"),
        (["--served-batches", ""], "--served-batches must be a whole number, 1 to 4096"),
        (["--served-batches", "1,5000"], "--served-batches must be a whole number, 1 to 4096"),
        (["--served-batches", "1,8", "--max-batch", "16"], "ends with 8, and --max-batch is 16"),
        (["--served-batches", "1,8", "--engine", "simulated", "--gpu", "v100"], "batches of any size"),
        (["--missing-plan", "guess"], "--missing-plan must be one of build, refuse"),
        (["--missing-plan", "refuse"], "for --engine tensorrt and tensorrt-rtx, got --engine onnxruntime"),
        (
            ["--cuda-shared-memory"],
            "for the engines onnxruntime-cuda, tensorrt, tensorrt-rtx, got --engine onnxruntime",
        ),
        (["--no-govern", "--govern", "a"], "contradict"),
        (["--holdback", "0.6"], "--holdback 0.6 is over 0.5"),
        (["--govern", "b", "--model", "a"], "--govern b is not among the models served: a"),
        (["--tls-cert", "c.pem"], "go together"),
        (["--tls-key", "k.pem"], "go together"),
        (["--tls-client-ca", "ca.pem"], "needs --tls-cert"),
        (["--operator-port", "-1"], "--operator-port must be a whole number"),
        (["--operator-client-ca", "ca.pem"], "--operator-client-ca needs --tls-cert"),
        (["--operator-address", "192.0.2.1"], "add --operator-token-file, or --operator-client-ca"),
        (
            ["--operator-address", "::", "--tls-cert", "c.pem", "--tls-key", "k.pem"],
            "anyone there could steer this server",
        ),
        (["--control"], "name that GPU, as in --device 0, not --device auto"),
        (["--control", "--device", "cpu"], "name that GPU, as in --device 0, not --device cpu"),
        (["--control", "--device", "0", "--no-govern"], "--control and --no-govern contradict each other"),
        (["--control", "--device", "0", "--policy", "fixed"], "--control and --policy fixed contradict"),
        (["--device", "0", "--keeper-socket", "k"], "--keeper-socket needs --control"),
        (["--device", "0", "--memory-clock-mhz", "877"], "--memory-clock-mhz needs --control"),
        (["--device", "0", "--power-limit-w", "200"], "--power-limit-w needs --control"),
        (["--engine", "simulated", "--gpu", "v100", "--device", "cpu"], "does not run on the CPU"),
        (["--policy", "greedy"], "--policy must be one of boulton, fixed"),
        (["--state-dir", ""], "--state-dir must be a path"),
    ],
)
def test_wrong_flags_are_refused(flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse("--repository", "m", *flags)
    assert message in str(refused.value)


def test_batch_sizes_come_as_text_or_as_a_list(config: Path) -> None:
    assert parse("--repository", "m", "--served-batches", "1, 8,32").served_batches == (1, 8, 32)
    config.write_text('repository = "m"\nserved-batches = [1, 8]\nmax-batch = 8\n')
    assert parse("--config", str(config)).served_batches == (1, 8)
    config.write_text('repository = "m"\nserved-batches = 8\n')
    with pytest.raises(ConfigError, match="ascending whole numbers"):
        parse("--config", str(config))


@pytest.mark.parametrize(
    "guard",
    [
        ["--operator-token-file", "tokens"],
        ["--token-file", "tokens"],
        ["--tls-cert", "c.pem", "--tls-key", "k.pem", "--operator-client-ca", "ca.pem"],
        ["--tls-cert", "c.pem", "--tls-key", "k.pem", "--tls-client-ca", "ca.pem"],
    ],
)
def test_an_operator_s_port_that_is_guarded_may_face_the_network(guard: list[str]) -> None:
    settings = parse("--repository", "m", "--operator-address", "192.0.2.1", *guard)
    assert settings.operator_address == "192.0.2.1"


def test_the_repository_is_required() -> None:
    with pytest.raises(ConfigError, match="--repository DIR is missing"):
        parse()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('repositry = "m"', "did you mean repository?"),
        ("zzzzzzzz = 1", "allowed are repository"),
        ('port = "x"', "port must be a whole number, 0 to 65535, got 'x'"),
        ("port = true", "got True"),
        (f"max_delay_ms = {10**400}", "max_delay_ms must be a number of at least 0"),
        (f"port = {'[' * 10_000}", "is not valid TOML"),
        ("port = 80.5", "got 80.5"),
        ("max_delay_ms = true", "max_delay_ms must be a number"),
        ("max_delay_ms = []", "max_delay_ms must be a number"),
        ('no_govern = "yes"', "no_govern must be true or false, got 'yes'"),
        ('model = "a"', "model must be a list of names"),
        ("repository = 3", "repository must be a path, got 3"),
        ("port = ", "is not valid TOML"),
    ],
)
def test_wrong_files_are_refused(config: Path, content: str, message: str) -> None:
    config.write_text(content)
    with pytest.raises(ConfigError) as refused:
        parse("--config", str(config))
    assert message in str(refused.value)
    assert str(config) in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(config: Path) -> None:
    with pytest.raises(ConfigError, match=f"--config {config} cannot be read: No such file"):
        parse("--config", str(config))


def test_a_file_that_is_not_text_is_refused(config: Path) -> None:
    config.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not valid TOML"):
        parse("--config", str(config))


def test_the_help_shows_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "--port N gRPC port; 0 takes a free one (default: 8001)" in shown
    assert "to fill; governed, the least (default: 0)" in shown


def test_limits_in_bytes() -> None:
    settings = Settings(repository=Path("m"), max_message_mib=2, max_queue_mib=3)
    assert (settings.max_message_bytes, settings.max_queue_bytes) == (2 << 20, 3 << 20)


def test_the_keeper_listens_where_it_is_told_or_where_it_usually_does() -> None:
    assert Settings(repository=Path("m")).keeper == Path("/run/boulton/keeper.sock")
    settings = parse("--repository", "m", "--device", "0", "--control", "--keeper-socket", "k.sock")
    assert settings.keeper == Path("k.sock")
