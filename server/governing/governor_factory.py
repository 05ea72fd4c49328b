"""Which model is governed, over which grid, towards which targets: what the settings mean to the governor."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from optimizer.devices.gpu import Gpu
from optimizer.governor import Governor
from optimizer.holdback import Holdback
from optimizer.models.prior import Prior
from optimizer.operating_point import OperatingGrid
from optimizer.policies.boulton import BoultonPolicy
from optimizer.policies.fixed import fixed
from optimizer.policies.policy import Policy
from optimizer.settings_table import SettingsError
from optimizer.targets import Targets, load_targets
from server.config import Settings
from server.devices.patience import within
from server.errors import ConfigError, NotFound
from server.governing.keeping import LearnedFile, TargetsFile, default_directory
from server.governing.loop import Governing
from server.governing.memory import Keeping
from server.governing.plant import Caller, ServingPlant
from server.models.spec import ModelSpec
from server.models.table import ModelService, ModelTable
from server.scheduling.scheduler import Scheduler

POLICIES: dict[str, Callable[[OperatingGrid], Policy]] = {
    "boulton": BoultonPolicy,
    "fixed": fixed,
}
"""Who may decide here, by the names that `--policy` takes."""
Foresee = Callable[[OperatingGrid], Prior | None]
"""Predicts the governed network over a grid."""

CLOCKS_LIMIT_S = 5.0

logger = logging.getLogger("boulton.governor")


def read_targets(settings: Settings) -> Targets:
    """Read the targets that the settings name, or take the defaults. Raises `ConfigError`."""
    if settings.targets is None:
        return Targets()
    try:
        return load_targets(settings.targets)
    except SettingsError as error:
        raise ConfigError(f"--targets: {error}") from error


def make_governing(
    settings: Settings,
    targets: Targets,
    models: ModelTable,
    device: Gpu,
    call: Caller,
    foresight: Foresee | None = None,
) -> Governing | None:
    """Make the governor, not yet started; None, and a line in the log, when there is nothing to govern.

    `foresight` says what it goes by until it has learned; None: it learns before it acts.

    Raises:
        ConfigError: the model to govern is not loaded.
    """
    model = None if settings.no_govern else choose_model(settings.govern, models)
    _say_fixed(models, model)
    if model is None:
        if settings.control:
            logger.warning("--control sets nothing on %s: no model is governed", device.uuid)
        return None
    plant = _plant(settings, models, model.spec.name, device, call)
    batch_limits = _batch_limits(settings, model)
    appoint = _Appointment(settings, targets, model.spec, batch_limits, device, plant, foresight)
    # Fixed means fixed by nobody: the clock stays the device's own affair.
    clocks_mhz = () if appoint.fixed else _settable_clocks_mhz(device)
    if not (clocks_mhz or appoint.has_work_without_clocks):
        logger.info("model '%s' has neither batch limit nor clock to govern", model.spec.name)
        return None
    return _governing(appoint, clocks_mhz)


def _plant(settings: Settings, models: ModelTable, name: str, device: Gpu, call: Caller) -> ServingPlant:
    least_delay_s = settings.max_delay_ms / 1e3
    return ServingPlant(lambda: _scheduler(models, name), device, call, least_delay_s=least_delay_s)


def _settable_clocks_mhz(device: Gpu) -> tuple[int, ...]:
    """The clocks that may be set; none yet where the driver hangs, for that must not hold up serving."""
    try:
        return within(CLOCKS_LIMIT_S, lambda: device.sm_clocks_mhz)
    except TimeoutError:
        text = "%s has not said within %g s which clocks may be set: its clock is left alone until it does"
        logger.warning(text, device.uuid, CLOCKS_LIMIT_S)
        return ()


def _governing(appoint: _Appointment, clocks_mhz: tuple[int, ...]) -> Governing:
    governor, keeping = appoint(clocks_mhz)
    device, name, interval_s = appoint.device, appoint.spec.name, appoint.settings.decision_interval_s
    logger.info(
        "governing model '%s' on %s every %g s (%s)", name, device.uuid, interval_s, governor.policy.name
    )
    return Governing(governor, device, name, interval_s, keeping, appoint if appoint.awaits_clocks else None)


@dataclass(frozen=True, slots=True)
class _Appointment:
    """Makes governors of one model that differ in the clocks they may set."""

    settings: Settings
    targets: Targets
    spec: ModelSpec
    batch_limits: tuple[int, ...]
    device: Gpu
    plant: ServingPlant
    foresight: Foresee | None

    @property
    def fixed(self) -> bool:
        """Whether nobody decides."""
        return self.settings.policy == "fixed"

    @property
    def awaits_clocks(self) -> bool:
        """Whether clocks that cannot be set now may be set later, as when a keeper is started."""
        return self.settings.control and not self.fixed

    @property
    def has_work_without_clocks(self) -> bool:
        """Whether there is something to govern, to measure or to wait for besides."""
        return len(self.batch_limits) > 1 or self.fixed or self.awaits_clocks

    def __call__(self, clocks_mhz: tuple[int, ...]) -> tuple[Governor, Keeping]:
        """Return the governor, under the targets that were last set, and where what it knows is kept."""
        grid = OperatingGrid(self.batch_limits, clocks_mhz)
        policy = POLICIES[self.settings.policy](grid)
        if self.foresight is not None:
            policy = BoultonPolicy(grid, self.foresight(grid))
        keeping = self._keeping(grid, policy)
        wanted = keeping.targets.load()
        governor = Governor(
            self.plant,
            policy,
            grid,
            wanted,
            time.monotonic,
            time_of_day=local_time_of_day,
            holdback=Holdback(self.settings.holdback, Random()) if self.settings.holdback else None,
        )
        return governor, keeping

    def _keeping(self, grid: OperatingGrid, policy: Policy) -> Keeping:
        settings, name = self.settings, self.spec.name
        directory = settings.state_dir or default_directory()
        conditions = _conditions(settings, self.spec, grid)
        return Keeping(
            TargetsFile(directory, settings.repository, name, self.targets),
            LearnedFile(directory, self.device.uuid, name, conditions, policy.name),
        )


def local_time_of_day() -> float:
    """Seconds since midnight by the clock on this machine's wall: what tariffs mean by the time of day."""
    now = time.localtime()
    return now.tm_hour * 3600.0 + now.tm_min * 60.0 + now.tm_sec


def choose_model(wanted: str | None, models: ModelTable) -> ModelService | None:
    """Return the model to govern: the one named, else the only one. Raises `ConfigError`."""
    loaded = tuple(models)
    if wanted is None:
        return loaded[0] if len(loaded) == 1 else None
    for model in loaded:
        if model.spec.name == wanted:
            return model
    names = ", ".join(model.spec.name for model in loaded)
    raise ConfigError(f"--govern {wanted}: no such model is loaded; loaded are {names or 'none'}")


def _conditions(settings: Settings, spec: ModelSpec, grid: OperatingGrid) -> str:
    """Under what a network was learned, beside its device: its precision, and what holds the GPU fast.

    What is learned while nobody lends the clock says nothing of clocks, and must not replace what does.
    """
    parts = [spec.precision.upper()]
    if settings.control and not grid.sm_clocks_mhz:
        parts.append("own-clock")
    if settings.memory_clock_mhz is not None:
        parts.append(f"memory-{settings.memory_clock_mhz}mhz")
    if settings.power_limit_w is not None:
        parts.append(f"limit-{settings.power_limit_w:g}w")
    return "-".join(parts)


def _batch_limits(settings: Settings, model: ModelService) -> tuple[int, ...]:
    """Every batch size up to the largest; only those that the engine runs, as others would be padded."""
    largest = max(1, model.spec.max_batch)
    largest = min(largest, settings.batch_limit or largest)
    served = tuple(size for size in model.engine.served_batches if size <= largest)
    return served or tuple(range(1, largest + 1))


def _scheduler(models: ModelTable, name: str) -> Scheduler | None:
    try:
        return models.get(name).scheduler
    except NotFound:
        return None


def _say_fixed(models: ModelTable, governed: ModelService | None) -> None:
    """Say which models nobody governs, and at what they run."""
    for model in models:
        if model is not governed:
            limit = model.scheduler.batch_limit
            logger.info("model '%s' runs at fixed settings: batch <= %d", model.spec.name, limit)
    if governed is None:
        logger.info("no model is governed; --govern NAME chooses one")
