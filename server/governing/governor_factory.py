"""Which model is governed, over which grid, towards which targets: what the settings mean to the governor."""

from __future__ import annotations

import logging
import time

from optimizer.devices.gpu import Gpu
from optimizer.governor import Governor
from optimizer.operating_point import OperatingGrid
from optimizer.policies.fixed import FixedPolicy
from optimizer.policies.predictive import PredictivePolicy
from optimizer.revenue import Targets, load_targets
from optimizer.settings_table import SettingsError
from server.config import Settings
from server.errors import ConfigError, NotFound
from server.governing.loop import Governing
from server.governing.plant import Caller, ServingPlant
from server.models.table import ModelService, ModelTable
from server.scheduling.scheduler import Scheduler

# A step scores every setting: neighbouring clocks of a long list differ by less than the noise.
MAX_CLOCKS = 32

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
    settings: Settings, targets: Targets, models: ModelTable, device: Gpu, call: Caller
) -> Governing | None:
    """Make the governor, not yet started; None, and a line in the log, when there is nothing to govern.

    Raises:
        ConfigError: the model to govern is not loaded.
    """
    model = None if settings.no_govern else choose_model(settings.govern, models)
    _say_fixed(models, model)
    if model is None:
        return None
    fixed = settings.policy == "fixed"
    # Fixed means fixed by nobody: the clock stays the device's own affair.
    grid = make_grid(_largest_batch(settings, model), () if fixed else device.sm_clocks_mhz)
    if len(grid) == 1 and not fixed:
        logger.info("model '%s' has neither batch limit nor clock to govern", model.spec.name)
        return None
    name = model.spec.name
    plant = ServingPlant(lambda: _scheduler(models, name), device, call)
    policy = FixedPolicy(grid) if fixed else PredictivePolicy(grid)
    governor = Governor(plant, policy, grid, targets, time.monotonic)
    interval_s = settings.decision_interval_s
    logger.info("governing model '%s' on %s every %g s (%s)", name, device.uuid, interval_s, policy.name)
    return Governing(governor, device, name, settings.decision_interval_s)


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


def make_grid(largest_batch: int, sm_clocks_mhz: tuple[int, ...]) -> OperatingGrid:
    """Return the legal settings: batch limits up to the largest, and at most `MAX_CLOCKS` clocks."""
    return OperatingGrid(batch_limits(largest_batch), thinned(sm_clocks_mhz, MAX_CLOCKS))


def batch_limits(largest: int) -> tuple[int, ...]:
    """Powers of two, the middles between them, and the largest: 1, 2, 3, 4, 6, 8, 12, 16, ..."""
    limits, power = {largest}, 1
    while power < largest:
        limits |= {power, power + power // 2}
        power *= 2
    return tuple(sorted(limit for limit in limits if limit <= largest))


def thinned(values: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Keep at most `most` values, evenly spread; the first and the last stay."""
    if len(values) <= most:
        return values
    return tuple(values[round(index * (len(values) - 1) / (most - 1))] for index in range(most))


def _largest_batch(settings: Settings, model: ModelService) -> int:
    largest = max(1, model.spec.max_batch)
    return min(largest, settings.batch_limit or largest)


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
