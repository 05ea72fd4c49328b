"""Rehearse a policy on a simulated GPU against the default and the best fixed setting in hindsight.

The queue, the governor and the policy are those that serve; the GPU, the clock and the traffic are simulated.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.console import make_console
from bench.flags import number, whole
from bench.output import check_writable
from bench.simulate.arrival_forms import HELP, MAX_DURATION_S, read_arrivals
from bench.simulate.oracle import static_oracle
from bench.simulate.policy_names import FIXED, PLAYED_AS, played_name
from bench.simulate.progress import SimulationProgress, simulation_progress
from bench.simulate.report import Report, as_json, show, show_decisions
from bench.simulate.run import Run, simulate, simulate_fixed
from bench.simulate.saved_state import load_state, save_state
from bench.simulate.scenario import Scenario, default_point
from bench.simulate.slowdown_forms import FORM as SLOWDOWN_FORM
from bench.simulate.slowdown_forms import HELP as SLOWDOWN_HELP
from bench.simulate.slowdown_forms import slowdown_form, slowdowns_of
from optimizer.foresight import check_device, prior_of, steps_of_file
from optimizer.layers.dataset import DatasetError
from optimizer.layers.saved import load_predictor
from optimizer.models.prior import Prior
from optimizer.operating_point import OperatingGrid
from optimizer.policies.boulton import BoultonPolicy
from optimizer.policies.policy import Policy
from optimizer.policies.registry import POLICY_NAMES, OfflineSweep, make_policy
from optimizer.settings_table import SettingsError
from optimizer.targets import Targets, load_targets
from optimizer.twin.gpu_profile import GpuProfile
from optimizer.twin.profile import load_profile, shipped_profiles
from optimizer.twin.surface import SurfacePhysics
from server.errors import ConfigError

DEFAULT_MAX_BATCH = 128
Foresee = Callable[[OperatingGrid], Prior]
"""Predicts the network of a scenario over a grid."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `boulton simulate` takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"{HELP}\n{SLOWDOWN_HELP}"
    add = parser.add_argument
    add("--gpu", required=True, metavar="PROFILE", help=f"a TOML file, or {', '.join(shipped_profiles())}")
    add("--model", required=True, metavar="NAME", help="a network in the profile")
    add("--policy", default=POLICY_NAMES[0], metavar="NAME", help=_POLICY)
    add("--arrivals", required=True, metavar="FORM", help="when images arrive, see below")
    add(
        "--slow-down", type=slowdown_form, action="append", default=[], metavar=SLOWDOWN_FORM, help=_SLOW_DOWN
    )
    add("--duration", type=number(0.0, MAX_DURATION_S), metavar="S", help=_DURATION)
    add("--targets", type=Path, metavar="FILE", help="SLO and prices, TOML (default: the server's defaults)")
    add("--seed", type=whole(0, 2**31), default=0, metavar="N", help="of traffic and noise (default: 0)")
    add("--json", type=Path, metavar="OUT", help="write the result as JSON; - is standard output")
    add("--max-batch", type=whole(1, 4096), metavar="N", help=_MAX_BATCH)
    add(
        "--interval",
        type=number(1e-3, 3600.0),
        default=1.0,
        metavar="S",
        help="between decisions (default: 1)",
    )
    add("--predictor", metavar="NAME|FILE", help=_PREDICTOR)
    add("--network", type=Path, metavar="MODEL.onnx", help="what --predictor predicts: the model's graph")
    add("--state", type=Path, metavar="FILE", help="start from what was learned, and save what is learned")
    add("--explain", action="store_true", help="print every decision with its reason")


_PREDICTOR = "start from what this predicts, as `boulton calibrate` fits one; learned state wins over it"
_POLICY = f"one of {', '.join(POLICY_NAMES)}; {FIXED}, as `boulton serve` has it, is {PLAYED_AS}"
_SLOW_DOWN = "hold the card at this clock or less for a time, as if it grew too hot; may be repeated"
_DURATION = "how long images arrive (default: a trace's length, else 60)"
_MAX_BATCH = f"the engine's largest batch (default: {DEFAULT_MAX_BATCH}, or the largest that was measured)"


def run(arguments: argparse.Namespace) -> int:
    """Simulate and report."""
    scenario = scenario_from(arguments)
    arguments.policy = _policy(arguments.policy)
    state, foresight = _state(arguments, scenario), _foresight(arguments, scenario)
    check_writable(arguments.json, "--json")
    report = rehearse(scenario, arguments.policy, arguments.arrivals, state, foresight)
    if arguments.state is not None and report.run.state is not None:
        save_state(arguments.state, arguments.policy, scenario.profile.name, scenario.model, report.run.state)
    _say(report, arguments.json, explain=arguments.explain)
    return 0


def scenario_from(arguments: argparse.Namespace) -> Scenario:
    """Turn flags into a scenario. Raises ConfigError when one of them, or a file, cannot be used."""
    profile, targets = _profile(arguments.gpu, arguments.model), _targets(arguments.targets)
    arrivals_s, duration_s = read_arrivals(arguments.arrivals, arguments.duration, arguments.seed)
    return Scenario(
        profile=profile,
        model=arguments.model,
        arrivals_s=arrivals_s,
        duration_s=duration_s,
        targets=targets,
        seed=arguments.seed,
        max_batch=arguments.max_batch or largest_batch(profile, arguments.model),
        interval_s=arguments.interval,
        slowdowns=slowdowns_of(arguments.slow_down, profile),
    )


def largest_batch(profile: GpuProfile, model: str) -> int:
    """Return the engine's largest batch: the usual one, or the largest that was measured if that is less."""
    physics = profile.model(model)
    if not isinstance(physics, SurfacePhysics):
        return DEFAULT_MAX_BATCH
    return min(DEFAULT_MAX_BATCH, max(sweep.batch for sweep in physics.sweeps))


def rehearse(
    scenario: Scenario,
    policy: str,
    arrivals: str,
    state: Mapping[str, object] | None = None,
    foresight: Foresee | None = None,
) -> Report:
    """Let a policy govern, and find what it is held against. Raises ConfigError for an unusable state.

    `foresight` predicts for our own policy, which has learned nothing; the others ask for no prediction.
    """
    tried = 0
    with simulation_progress(scenario.end_s) as progress:

        def searched(settings: int) -> None:
            nonlocal tried
            tried = settings
            progress.searched(settings)

        ran = _simulated(scenario, policy, state, foresight, progress)
        default = default_point(scenario)
        oracle, best = static_oracle(scenario, cache=cache_folder(), progress=searched)
        return Report(
            scenario, arrivals, ran, default, simulate_fixed(scenario, default), oracle, best, tried
        )


def cache_folder() -> Path:
    """Where winners of searches in hindsight are remembered."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home else Path.home() / ".cache") / "boulton" / "static-oracle"


def _simulated(
    scenario: Scenario,
    policy: str,
    state: Mapping[str, object] | None,
    foresight: Foresee | None,
    progress: SimulationProgress,
) -> Run:
    sweep = sweep_of(scenario)

    def make(grid: OperatingGrid) -> Policy:
        if foresight is not None:
            return BoultonPolicy(grid, foresight(grid))
        return make_policy(policy, grid, scenario.targets.at(0.0), sweep)

    if state is None:
        return simulate(scenario, make, progress=progress.governed)
    try:
        return simulate(scenario, make, state, progress.governed)
    except ValueError as error:
        raise ConfigError(f"--state: {error}") from error


def sweep_of(scenario: Scenario) -> OfflineSweep:
    """Return what policies that tune offline may measure: the profile itself."""
    physics, profile = scenario.profile.model(scenario.model), scenario.profile
    return OfflineSweep(physics.batch_s, physics.busy_power_w, profile.idle_power_w, profile.power_limit_w)


def _profile(name: str, model: str) -> GpuProfile:
    try:
        profile = load_profile(name)
        profile.model(model)
    except SettingsError as error:
        raise ConfigError(f"--gpu {error}") from error
    except KeyError as error:
        raise ConfigError(f"--model {model}: {error.args[0]}") from error
    return profile


def _targets(path: Path | None) -> Targets:
    try:
        return Targets() if path is None else load_targets(path)
    except SettingsError as error:
        raise ConfigError(f"--targets {error}") from error


def _policy(name: str) -> str:
    """Return the policy's name here. Raises ConfigError when there is none."""
    played = played_name(name)
    if played != name:
        print(f"boulton: --policy {name} is policy {played} here: the default setting", file=sys.stderr)
        return played
    if name not in POLICY_NAMES:
        raise ConfigError(f"--policy {name}: no such policy; there are {', '.join(POLICY_NAMES)}")
    return name


def _state(arguments: argparse.Namespace, scenario: Scenario) -> Mapping[str, object] | None:
    if arguments.state is None:
        return None
    return load_state(arguments.state, arguments.policy, scenario.profile.name, scenario.model)


def _foresight(arguments: argparse.Namespace, scenario: Scenario) -> Foresee | None:
    """Read predictor and network, and hold the one against the GPU. Raises ConfigError."""
    name, network = arguments.predictor, arguments.network
    if (name is None) != (network is None):
        raise ConfigError("--predictor and --network go together: who predicts, and what is predicted")
    if name is None:
        return None
    if arguments.policy != POLICY_NAMES[0]:
        raise ConfigError(f"--predictor: policy {arguments.policy} takes no prediction; leave it out")
    try:
        predictor = load_predictor(name)
        check_device(predictor, scenario.profile.name, simulated=True)
        steps = steps_of_file(network)
        prior_of(predictor, steps, scenario.max_batch, scenario.profile.sm_clocks_mhz)
    except (DatasetError, ValueError) as error:
        raise ConfigError(f"--predictor {name}: {error}") from error
    return lambda grid: prior_of(predictor, steps, grid.batch_limits[-1], grid.sm_clocks_mhz)


def _say(report: Report, path: Path | None, *, explain: bool) -> None:
    """The table goes to standard output, unless JSON was asked for there."""
    text = json.dumps(as_json(report), indent=2, allow_nan=False)
    if path == Path("-"):
        print(text)
        return
    console = make_console()
    if explain:
        show_decisions(report.run, console)
    show(report, console)
    if path is not None:
        path.write_text(text + "\n", encoding="utf-8")
