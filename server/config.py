"""The settings of `boulton serve`: flags, an optional TOML file with the same names, and their rules."""

from __future__ import annotations

import argparse
import difflib
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from server.engines.registry import engine_kind, engine_names
from server.errors import ConfigError
from server.files import read_file
from server.setting_readers import Reader, ascending, names, number, one_of, path, switch, text, whole
from server.transport.loopback import is_loopback

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that `boulton serve` can be told. Contradictions raise `ConfigError`."""

    repository: Path
    model: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8001
    metrics_port: int = 8002
    no_metrics: bool = False
    operator_address: str = "127.0.0.1"
    operator_port: int | None = None
    operator_token_file: Path | None = None
    operator_client_ca: Path | None = None
    engine: str = "onnxruntime"
    gpu: str | None = None
    simulated_model: str | None = None
    seed: int = 0
    threads: int | None = None
    served_batches: tuple[int, ...] = ()
    missing_plan: str = "build"
    device: str = "auto"
    control: bool = False
    keeper_socket: Path | None = None
    memory_clock_mhz: int | None = None
    power_limit_w: float | None = None
    max_batch: int | None = None
    batch_limit: int | None = None
    max_delay_ms: float = 0.0
    max_queue_images: int = 4096
    max_queue_mib: int = 1024
    targets: Path | None = None
    no_govern: bool = False
    govern: str | None = None
    policy: str = "boulton"
    predictor: str | None = None
    decision_interval_s: float = 1.0
    holdback: float = 0.0
    state_dir: Path | None = None
    shared_memory: bool = False
    cuda_shared_memory: bool = False
    front_ends: int = 0
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    token_file: Path | None = None
    max_message_mib: int = 64
    shutdown_pause_s: float = 0.0
    drain_timeout_s: float = 30.0
    log_format: str = "text"
    log_level: str = "info"
    ready_file: Path | None = None

    def __post_init__(self) -> None:
        _check_batches(self)
        _check_simulation(self)
        _check_shared_memory(self)
        _check_governing(self)
        _check_device(self)
        _check_tls(self)
        _check_operator(self)

    @property
    def max_message_bytes(self) -> int:
        """The message limit in bytes."""
        return self.max_message_mib * MIB

    @property
    def keeper(self) -> Path:
        """Where the keeper listens."""
        return self.keeper_socket or KEEPER_SOCKET

    @property
    def max_queue_bytes(self) -> int:
        """The queue's limit in bytes."""
        return self.max_queue_mib * MIB


@dataclass(frozen=True, slots=True)
class Option:
    """How one setting is given: `metavar` stands for its value in the help."""

    read: Reader
    help: str
    metavar: str = "N"


PORT = whole(0, 65535)
BATCH = whole(1, 4096)

OPERATOR_PORT = 8003
MOST_HELD_BACK = 0.5
KEEPER_SOCKET = Path("/run/boulton/keeper.sock")
AUTO, CPU = "auto", "cpu"

_OPERATOR_PORT = (
    "gRPC port of the operator service; 0 takes a free one "
    f"(default: {OPERATOR_PORT}, or a free one when that is in use or --port is 0)"
)
_STATE_DIR = "where set targets and what was learned are kept (default: boulton in $XDG_STATE_HOME)"
_DEVICE = (
    "whose clock and energy count: auto, cpu, or a GPU by index, by UUID or by the beginning of its UUID"
)
_SERVED_BATCHES = (
    "batch sizes that run as they are; others are filled up to the next one (default: the engine's choice)"
)
_MISSING_PLAN = "TensorRT: what to do for a model without a plan on disk, build one (minutes) or refuse it"
_HOLDBACK = "share of the time, up to 0.5, at the default setting, to measure what governing saves; 0: never"
_FRONT_ENDS = "processes that speak gRPC for the daemon, sharing its port; 0: it speaks for itself"
_POLICY = "who decides; `fixed` measures and keeps the default setting"
_PREDICTOR = "until batches have run, govern by what this predicts for the model; of `boulton calibrate`"

OPTIONS = {
    "repository": Option(path, "the model repository", "DIR"),
    "model": Option(names, "serve this model; may be repeated (default: every model)", "NAME"),
    "host": Option(text, "address to listen on", "HOST"),
    "port": Option(PORT, "gRPC port; 0 takes a free one"),
    "metrics_port": Option(PORT, "port of the Prometheus metrics; 0 takes a free one"),
    "no_metrics": Option(switch, "serve no metrics"),
    "operator_address": Option(text, "address of the operator's port", "HOST"),
    "operator_port": Option(PORT, _OPERATOR_PORT),
    "operator_token_file": Option(path, "tokens of the operator's port (default: --token-file)", "FILE"),
    "operator_client_ca": Option(
        path, "PEM authority of the operator's port, for mTLS (default: --tls-client-ca)", "FILE"
    ),
    "engine": Option(one_of(*engine_names(), "simulated"), "what runs the networks", "NAME"),
    "gpu": Option(text, "simulated engine: profile of the GPU, a shipped name or a TOML file", "PROFILE"),
    "simulated_model": Option(text, "simulated engine: the profile's model that gives the times", "NAME"),
    "seed": Option(whole(0), "simulated engine: seed of its noise"),
    "device": Option(text, _DEVICE, "DEVICE"),
    "control": Option(switch, "set that GPU's clock, through `boulton keeper`; without it, only read it"),
    "keeper_socket": Option(path, f"where the keeper listens (default: {KEEPER_SOCKET})", "PATH"),
    "memory_clock_mhz": Option(
        whole(1), "with --control: hold the memory clock at this (default: let it be)", "MHZ"
    ),
    "power_limit_w": Option(
        number(1.0), "with --control: hold the power limit at this (default: let it be)", "W"
    ),
    "threads": Option(whole(1, 1024), "engine threads (default: one a core)"),
    "served_batches": Option(ascending(BATCH), _SERVED_BATCHES, "1,8,32"),
    "missing_plan": Option(one_of("build", "refuse"), _MISSING_PLAN, "DO"),
    "max_batch": Option(BATCH, "largest batch in images (default: the model's own, else 64)"),
    "batch_limit": Option(
        BATCH, "batch limit; governed, the largest it may get (default: the largest batch)"
    ),
    "max_delay_ms": Option(number(0.0), "how long a batch may wait to fill; governed, the least", "MS"),
    "max_queue_images": Option(whole(1), "queued images beyond which requests are refused"),
    "max_queue_mib": Option(whole(1), "queued MiB beyond which requests are refused", "MIB"),
    "targets": Option(path, "TOML file with the SLO and prices", "FILE"),
    "no_govern": Option(switch, "keep the batch limit and the clock as they are"),
    "govern": Option(text, "govern this model (default: the only one)", "MODEL"),
    "policy": Option(one_of("boulton", "fixed"), _POLICY, "NAME"),
    "predictor": Option(text, _PREDICTOR, "NAME|FILE"),
    "decision_interval_s": Option(number(0.01), "seconds between decisions", "S"),
    "holdback": Option(number(0.0), _HOLDBACK, "SHARE"),
    "state_dir": Option(path, _STATE_DIR, "DIR"),
    "shared_memory": Option(switch, "let clients pass tensors in system shared memory"),
    "cuda_shared_memory": Option(switch, "let clients pass tensors in memory of the GPU that they share"),
    "front_ends": Option(whole(0, 256), _FRONT_ENDS),
    "tls_cert": Option(path, "PEM certificate: serve TLS", "FILE"),
    "tls_key": Option(path, "PEM private key of the certificate", "FILE"),
    "tls_client_ca": Option(path, "PEM authority: accept only clients that it signed (mTLS)", "FILE"),
    "token_file": Option(path, "accept only its tokens: lines `client TOKEN` or `operator TOKEN`", "FILE"),
    "max_message_mib": Option(whole(1, 2047), "largest gRPC message, in and out", "MIB"),
    "shutdown_pause_s": Option(number(0.0), "seconds to serve on, not ready, once told to stop", "S"),
    "drain_timeout_s": Option(number(0.0), "seconds that accepted requests may take then", "S"),
    "log_format": Option(one_of("text", "json"), "form of the log", "FORM"),
    "log_level": Option(one_of("debug", "info", "warning", "error"), "least level logged", "LEVEL"),
    "ready_file": Option(path, "write ports and pid here as JSON when ready", "FILE"),
}
DEFAULTS = {setting.name: setting.default for setting in fields(Settings) if setting.name != "repository"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare one flag for each setting, and `--config`."""
    parser.add_argument("--config", metavar="FILE", help="TOML file with the flags' names as keys; flags win")
    for name, option in OPTIONS.items():
        parser.add_argument(_flag(name), dest=name, **_argument(name, option))


def settings_from(arguments: argparse.Namespace) -> Settings:
    """Join the file named by `--config` and the flags. Raises `ConfigError`."""
    given = {name: value for name, value in vars(arguments).items() if name in OPTIONS}
    values = {} if arguments.config is None else _load(Path(arguments.config))
    values |= {name: _read(name, value, _flag(name)) for name, value in given.items()}
    if "repository" not in values:
        raise ConfigError("--repository DIR is missing; `boulton export` makes a model repository")
    return Settings(**values)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _argument(name: str, option: Option) -> dict[str, Any]:
    """What argparse must know. Values stay text here, so that flags and file are judged by the same rules."""
    default = DEFAULTS.get(name)
    shown = f" (default: {default:g})" if isinstance(default, float) else f" (default: {default})"
    told = bool(default) or (isinstance(default, int | float) and option.read is not switch)
    argument = {"help": option.help + (shown if told else ""), "default": argparse.SUPPRESS}
    if option.read is switch:
        return argument | {"action": "store_true"}
    action = "append" if option.read is names else "store"
    return argument | {"action": action, "metavar": option.metavar}


def _load(file: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(read_file(file, "--config").decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"--config {file} is not valid TOML: {error}") from error
    return dict(_entry(file, key, value) for key, value in table.items())


def _entry(file: Path, key: str, value: object) -> tuple[str, Any]:
    name = key.replace("-", "_")
    if name not in OPTIONS:
        close = difflib.get_close_matches(name, OPTIONS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"allowed are {', '.join(OPTIONS)}"
        raise ConfigError(f"{file}: unknown key {key!r}; {hint}")
    return name, _read(name, value, f"{file}: {key}")


def _read(name: str, value: object, where: str) -> object:
    try:
        return OPTIONS[name].read(value)
    except ValueError as error:
        raise ConfigError(f"{where} must be {error}, got {value!r}") from None


def _check_batches(settings: Settings) -> None:
    sizes = settings.served_batches
    if sizes and settings.engine == "simulated":
        raise ConfigError("--engine simulated runs batches of any size: leave --served-batches out")
    if sizes and settings.max_batch not in (None, sizes[-1]):
        raise ConfigError(
            f"--served-batches ends with {sizes[-1]}, and --max-batch is {settings.max_batch}: leave "
            "--max-batch out"
        )
    if settings.missing_plan != "build" and not settings.engine.startswith("tensorrt"):
        raise ConfigError(
            f"--missing-plan is for --engine tensorrt and tensorrt-rtx, got --engine {settings.engine}"
        )
    if settings.batch_limit and settings.max_batch and settings.batch_limit > settings.max_batch:
        raise ConfigError(f"--batch-limit {settings.batch_limit} is over --max-batch {settings.max_batch}")


def _check_simulation(settings: Settings) -> None:
    if settings.engine == "simulated" and settings.gpu is None:
        raise ConfigError("--engine simulated needs --gpu PROFILE, the GPU to simulate")
    for name in ("gpu", "simulated_model"):
        if settings.engine != "simulated" and getattr(settings, name) is not None:
            raise ConfigError(f"{_flag(name)} needs --engine simulated, got --engine {settings.engine}")


def _check_shared_memory(settings: Settings) -> None:
    able = [name for name in engine_names() if engine_kind(name).exchanges]
    if settings.cuda_shared_memory and settings.engine not in able:
        raise ConfigError(
            f"--cuda-shared-memory is for the engines {', '.join(able)}, got --engine {settings.engine}"
        )


def _check_governing(settings: Settings) -> None:
    if settings.holdback > MOST_HELD_BACK:
        raise ConfigError(f"--holdback {settings.holdback:g} is over {MOST_HELD_BACK:g} of the time")
    if settings.no_govern and settings.govern is not None:
        raise ConfigError("--govern and --no-govern contradict each other; give one of them")
    if settings.predictor is not None and (settings.no_govern or settings.policy != "boulton"):
        given = "--no-govern" if settings.no_govern else f"--policy {settings.policy}"
        raise ConfigError(f"--predictor and {given} contradict each other: nobody would ask it")
    if settings.govern is not None and settings.model and settings.govern not in settings.model:
        raise ConfigError(
            f"--govern {settings.govern} is not among the models served: {', '.join(settings.model)}"
        )


def _check_device(settings: Settings) -> None:
    for name in ("keeper_socket", "memory_clock_mhz", "power_limit_w"):
        if getattr(settings, name) is not None and not settings.control:
            raise ConfigError(f"{_flag(name)} needs --control: without it nothing is set on a GPU")
    if settings.device == CPU and settings.engine == "simulated":
        raise ConfigError("--engine simulated does not run on the CPU: leave --device out, or name a GPU")
    if not settings.control:
        return
    if settings.device in (AUTO, CPU):
        raise ConfigError(
            f"--control sets a GPU's clock: name that GPU, as in --device 0, not --device {settings.device}"
        )
    if settings.no_govern or settings.policy == "fixed":
        given = "--no-govern" if settings.no_govern else "--policy fixed"
        raise ConfigError(f"--control and {given} contradict each other: nobody would choose a clock")


def _check_tls(settings: Settings) -> None:
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise ConfigError("--tls-cert and --tls-key go together; give both or none")
    if settings.tls_client_ca is not None and settings.tls_cert is None:
        raise ConfigError("--tls-client-ca needs --tls-cert and --tls-key")


def _check_operator(settings: Settings) -> None:
    if settings.operator_client_ca is not None and settings.tls_cert is None:
        raise ConfigError("--operator-client-ca needs --tls-cert and --tls-key")
    tokens = settings.operator_token_file or settings.token_file
    authority = settings.operator_client_ca or settings.tls_client_ca
    if tokens is None and authority is None and not is_loopback(settings.operator_address):
        raise ConfigError(
            f"--operator-address {settings.operator_address} is reachable from other machines, and anyone "
            "there could steer this server: add --operator-token-file, or --operator-client-ca for mTLS"
        )
