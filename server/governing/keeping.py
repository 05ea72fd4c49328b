"""What outlives the daemon: the targets that the operator set, and what the policy learned.

Small JSON files in the state directory, each written whole or not at all. A file that cannot be read, or says
something that is not allowed, is reported and ignored; one that cannot be written is reported.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from optimizer.energy_price import PriceSchedule, PriceStep
from optimizer.policies.policy import Learner
from optimizer.targets import Targets
from server.files import write_whole

logger = logging.getLogger("boulton.state")

_NAMES = tuple(field.name for field in fields(Targets))


def default_directory() -> Path:
    """Return where state is kept by the XDG convention."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (state if state.is_absolute() else _home() / ".local" / "state") / "boulton"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a user whom the machine does not know, as in a container
        return Path("/")


class TargetsFile:
    """Keeps the targets of one model of one repository.

    They are kept together with what they were changed from: once that is something else, because the operator
    edited the file that the server is started with, the file counts and the change is history.

    Args:
        directory: the state directory.
        repository: of the model.
        model: whose targets these are.
        given: the targets that the server was started with.
    """

    def __init__(self, directory: Path, repository: Path, model: str, given: Targets) -> None:
        where = hashlib.sha256(str(repository.resolve()).encode()).hexdigest()[:12]
        self.path = directory / "targets" / f"{_safe(model)}-{where}.json"
        self._given = given

    def load(self) -> Targets:
        """Return the targets last set, or else those given."""
        kept = read_json(self.path)
        if kept is None:
            return self._given
        try:
            given, targets = parse_targets(kept.get("given")), parse_targets(kept.get("targets"))
        except (ValueError, TypeError, OverflowError) as error:
            logger.warning("%s is ignored: %s", self.path, error)
            return self._given
        if given != self._given:
            logger.info("%s is ignored: the server was started with other targets than before", self.path)
            return self._given
        logger.info("targets as they were last set, from %s", self.path)
        return targets

    def save(self, targets: Targets) -> str | None:
        """Keep these targets for the next start; say why that cannot be."""
        return write_json(self.path, {"given": targets_json(self._given), "targets": targets_json(targets)})


class LearnedFile:
    """Keeps what a policy learned about one network on one device.

    Args:
        directory: the state directory.
        device: identity of the device.
        model: what it runs.
        precision: in which data type, and under which fixed settings of the device.
        policy: who learned it; another policy keeps another file.
    """

    def __init__(self, directory: Path, device: str, model: str, precision: str, policy: str) -> None:
        name = ",".join(_safe(part) for part in (model, precision, policy))
        self.path = directory / "learned" / _safe(device) / f"{name}.json"

    def restore(self, learner: Learner) -> None:
        """Teach a policy what was kept; what it cannot use, as a later version wrote it, is set aside."""
        kept = read_json(self.path)
        if kept is None:
            return
        try:
            learner.import_state(kept)
        except Exception as error:  # whatever a file may hold, it keeps no server from starting
            logger.warning("%s is ignored: %s: %s", self.path, type(error).__name__, error)
            self._set_aside()
        else:
            logger.info("the policy knows what was learned before, from %s", self.path)

    def _set_aside(self) -> None:
        """Leave the file beside the one that will be written, the latest such file only."""
        aside = self.path.with_name(f"{self.path.name}.ignored")
        try:
            self.path.replace(aside)
        except OSError as error:
            logger.warning("%s cannot be set aside: %s", self.path, error.strerror)
        else:
            logger.warning("it was set aside as %s", aside)

    def save(self, learner: Learner) -> None:
        """Keep what a policy has learned so far."""
        write_json(self.path, dict(learner.export_state()))

    def remove(self) -> None:
        """Keep nothing."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s cannot be removed: %s", self.path, error.strerror)


def targets_json(targets: Targets) -> dict[str, object]:
    """Write targets in values that JSON can hold; a price schedule becomes a list of steps."""
    values: dict[str, object] = {name: getattr(targets, name) for name in _NAMES}
    price = targets.energy_price_per_kwh
    if isinstance(price, PriceSchedule):
        values["energy_price_per_kwh"] = [[step.start_s, step.price_per_kwh] for step in price.steps]
    return values


def parse_targets(values: object) -> Targets:
    """Read what `targets_json` wrote. Raises ValueError or TypeError for anything else."""
    if not isinstance(values, dict):
        raise ValueError("expected targets by name")
    unknown = sorted(set(values) - set(_NAMES))
    if unknown:
        raise ValueError(f"unknown target {unknown[0]!r}")
    given: dict[str, Any] = dict(values)
    steps = given.get("energy_price_per_kwh")
    if isinstance(steps, list):
        given["energy_price_per_kwh"] = PriceSchedule(tuple(PriceStep(*step) for step in steps))
    return Targets(**given)


def read_json(path: Path) -> dict[str, object] | None:
    """Return the object in a file; None, after a line in the log, when there is none that can be used."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("%s is ignored: %s", path, error)
        return None
    if isinstance(value, dict):
        return value
    logger.warning("%s is ignored: expected a JSON object", path)
    return None


def write_json(path: Path, value: Mapping[str, object]) -> str | None:
    """Write an object whole or not at all; say, and log, why it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(path, json.dumps(value))
    except (OSError, TypeError, ValueError) as error:
        reason = f"{path} cannot be written: {error}"
        logger.warning("%s", reason)
        return reason
    return None


def _safe(name: str) -> str:
    """Write a name so that it can stand in a path: no separators, no leading dot."""
    return re.sub(r"[^A-Za-z0-9_.-]|^\.", lambda found: f"%{ord(found[0]):02x}", name) or "%"
