"""The marker: what was changed on a GPU, or is about to be, and how it was before.

It is written before the first change and removed after the last was undone. So whoever finds one knows that a
keeper died in between, and what to put right.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from enum import StrEnum

FORMAT = 1
_UUID = re.compile(r"GPU-[0-9A-Za-z-]{1,80}")


class Axis(StrEnum):
    """What can be changed on a GPU; the values are used in logs and markers."""

    POWER_LIMIT = "power limit"
    SM_LOCK = "locked SM clock"
    MEMORY_LOCK = "locked memory clock"
    APPLICATION_CLOCKS = "application clocks"


@dataclass(frozen=True, slots=True)
class Marker:
    """What was changed on a GPU.

    Args:
        changed: what may have been changed.
        confirmed: what the driver said that it changed: it can be undone, whatever the driver says later.
        power_limit_w: the power limit before; None: not known, so the card's default is put back.
        application_clocks_mhz: SM and memory clock for applications before; None likewise.
    """

    changed: frozenset[Axis] = frozenset()
    confirmed: frozenset[Axis] = frozenset()
    power_limit_w: float | None = None
    application_clocks_mhz: tuple[int, int] | None = None

    def about_to(self, axis: Axis) -> Marker:
        """Return the marker to be written before an axis is changed."""
        return replace(self, changed=self.changed | {axis})

    def confirm(self, axis: Axis) -> Marker:
        """Return the marker once the driver has accepted a change."""
        return replace(self, confirmed=self.confirmed | {axis})

    def without(self, axis: Axis) -> Marker:
        """Return the marker once an axis is as it was, or was never changed."""
        return replace(self, changed=self.changed - {axis}, confirmed=self.confirmed - {axis})


# What an unreadable marker stands for: anything may have been changed, and nothing is known.
ANYTHING = Marker(changed=frozenset(Axis))


def is_uuid(text: str) -> bool:
    """Whether this is the whole UUID of a GPU as NVML writes it, and so fit to name a file."""
    return _UUID.fullmatch(text) is not None


def encode_marker(uuid: str, marker: Marker) -> bytes:
    """Return the marker's file."""
    return json.dumps(
        {
            "format": FORMAT,
            "uuid": uuid,
            "changed": sorted(marker.changed),
            "confirmed": sorted(marker.confirmed),
            "power_limit_w": marker.power_limit_w,
            "application_clocks_mhz": marker.application_clocks_mhz,
        },
        indent=2,
    ).encode()


def decode_marker(uuid: str, content: bytes) -> Marker:
    """Read a marker's file. Raises ValueError when it is not what `encode_marker` wrote for this GPU."""
    values = json.loads(content)
    if not isinstance(values, dict) or values.get("format") != FORMAT or values.get("uuid") != uuid:
        raise ValueError(f"not a marker of {uuid} in format {FORMAT}")
    try:
        changed = frozenset(map(Axis, values["changed"]))
        confirmed = frozenset(map(Axis, values["confirmed"]))
        return Marker(changed, confirmed, _watts(values), _clocks(values))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a whole marker: {error!r}") from error


def _watts(values: dict[str, object]) -> float | None:
    watts = values["power_limit_w"]
    if watts is None:
        return None
    if not isinstance(watts, int | float) or isinstance(watts, bool) or not 0 < watts < float("inf"):
        raise ValueError(f"a power limit of {watts!r} W")
    return float(watts)


def _clocks(values: dict[str, object]) -> tuple[int, int] | None:
    clocks = values["application_clocks_mhz"]
    if clocks is None:
        return None
    if not isinstance(clocks, list) or len(clocks) != 2 or not all(type(clock) is int for clock in clocks):
        raise ValueError(f"application clocks of {clocks!r}")
    return clocks[0], clocks[1]
