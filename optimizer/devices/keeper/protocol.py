"""What is said between a client and the keeper: one JSON object a line, requests and answers in turn.

Requests: `hello`, `bounds`, `acquire`, `set`, `renew`, `release`; a connection's first is `hello`. Answers:
`{"ok": true, ...}` or `{"ok": false, "code": ..., "error": ...}`. Nothing here does I/O.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import NoReturn, cast

from optimizer.devices.gpu import DeviceError
from optimizer.devices.nvml.actuator import ClockBounds, GpuSetting

VERSION = 1
LONGEST_LINE = 4096
_SHOWN = 80


class Refusal(StrEnum):
    """Why a request was refused."""

    MALFORMED = "malformed"  # not a request; the keeper hangs up
    VERSION = "version"  # another version of this protocol; the keeper hangs up
    PEER = "peer"  # this user may not talk to the keeper; it hangs up
    TOO_MANY = "too_many"  # too many connections; it hangs up
    NO_HELLO = "no_hello"  # `hello` has to come first
    UNKNOWN_GPU = "unknown_gpu"  # not on the keeper's list
    HELD = "held"  # another client holds the GPU
    ONE_GPU = "one_gpu"  # this connection holds another GPU
    RESTORING = "restoring"  # the GPU is being given back: try again soon
    NO_LEASE = "no_lease"  # `acquire` has to come first
    EXPIRED = "expired"  # the lease was not renewed in time, and the GPU was given back
    OUT_OF_BOUNDS = "out_of_bounds"  # more than is permitted; nothing was changed
    GPU = "gpu"  # the GPU or its driver refused; what was changed is given back
    LOST = "lost"  # the GPU is lost or needs a reset: nothing can be set on it any more
    NOT_RESTORED = "not_restored"  # giving back failed; the keeper goes on trying
    STOPPING = "stopping"  # the keeper is being stopped


class Refused(DeviceError):
    """A request was refused; nothing was changed unless the code says so."""

    def __init__(self, code: Refusal, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Hello:
    """The first request: which version of the protocol the client speaks."""

    version: int


@dataclass(frozen=True, slots=True)
class AskBounds:
    """What may be set on a GPU? Takes no lease."""

    uuid: str


@dataclass(frozen=True, slots=True)
class Acquire:
    """Take the lease of a GPU."""

    uuid: str


@dataclass(frozen=True, slots=True)
class Set:
    """Set the GPU that is held, whole: an axis that is null goes back to the device."""

    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    power_limit_w: float | None

    @property
    def setting(self) -> GpuSetting:
        """The setting as the rest of Boulton speaks it."""
        return GpuSetting(self.sm_clock_mhz, self.memory_clock_mhz, self.power_limit_w)


@dataclass(frozen=True, slots=True)
class Renew:
    """The client is alive: let the lease run anew."""


@dataclass(frozen=True, slots=True)
class Release:
    """Give the GPU back; answered when it has its own clocks again."""


Request = Hello | AskBounds | Acquire | Set | Renew | Release

_REQUESTS: Mapping[str, type[Request]] = {
    "hello": Hello,
    "bounds": AskBounds,
    "acquire": Acquire,
    "set": Set,
    "renew": Renew,
    "release": Release,
}
_NAMES = {kind: name for name, kind in _REQUESTS.items()}


def parse_request(line: bytes) -> Request:
    """Read a request; raises Refused with the code MALFORMED for anything else."""
    message = _object(line)
    kind = _REQUESTS.get(str(message.pop("op", None)))
    if kind is None:
        _malformed(f"`op` must be one of {', '.join(_REQUESTS)}", line)
    names = [field.name for field in fields(kind)]
    if sorted(message) != sorted(names):
        _malformed(f"{_NAMES[kind]} takes exactly {names}, got {sorted(message)}", line)
    for name, value in message.items():
        expected, holds = _VALUES[name]
        if not holds(value):
            _malformed(f"{name} must be {expected}", line)
    # The values were just checked against the names, one by one.
    return cast("Callable[..., Request]", kind)(**message)


def encode_request(request: Request) -> bytes:
    """Return the request as a line."""
    return _line({"op": _NAMES[type(request)]} | asdict(request))


def encode_answer(facts: Mapping[str, object]) -> bytes:
    """Return a favourable answer as a line."""
    return _line({"ok": True} | dict(facts))


def encode_refusal(refused: Refused) -> bytes:
    """Return a refusal as a line."""
    return _line({"ok": False, "code": refused.code.value, "error": str(refused)})


def parse_answer(line: bytes) -> dict[str, object]:
    """Read the keeper's answer; raises Refused with its code and words when it refused."""
    message = _object(line)
    if message.pop("ok", None) is True:
        return message
    code, error = message.get("code"), message.get("error")
    if code not in set(Refusal) or not isinstance(error, str):
        _malformed("an answer is favourable, or gives its code and error", line)
    raise Refused(Refusal(str(code)), error)


def bounds_facts(bounds: ClockBounds) -> dict[str, object]:
    """Return bounds as part of an answer."""
    return {"bounds": asdict(bounds)}


def bounds_from(facts: Mapping[str, object]) -> ClockBounds:
    """Read bounds out of an answer; raises Refused with the code MALFORMED."""
    given = facts.get("bounds")
    try:
        bounds = ClockBounds(**given)  # type: ignore[arg-type]
        return ClockBounds(
            int(bounds.sm_low_mhz),
            int(bounds.sm_high_mhz),
            None if bounds.power_low_w is None else float(bounds.power_low_w),
            None if bounds.power_high_w is None else float(bounds.power_high_w),
            tuple(int(clock_mhz) for clock_mhz in bounds.memory_clocks_mhz),
        )
    except (TypeError, ValueError):
        _malformed("an answer's bounds name two SM clocks", repr(given).encode())


def _object(line: bytes) -> dict[str, object]:
    try:
        message = json.loads(line.decode("utf-8"), object_pairs_hook=_unambiguous, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        _malformed(f"not JSON ({error})", line)
    if not isinstance(message, dict):
        _malformed("not a JSON object", line)
    return message


def _unambiguous(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _line(message: Mapping[str, object]) -> bytes:
    return json.dumps(message, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _malformed(expected: str, line: bytes) -> NoReturn:
    shown = repr(line[:_SHOWN]) + ("..." if len(line) > _SHOWN else "")
    raise Refused(Refusal.MALFORMED, f"malformed line: {expected}; got {shown}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_megahertz(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0)


def _is_watts(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (is_number and math.isfinite(_float(value)) and _float(value) > 0)


def _float(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        return math.inf


def _is_text(value: object) -> bool:
    return isinstance(value, str)


_VALUES: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    "version": ("a whole number", _is_whole),
    "uuid": ("a text", _is_text),
    "sm_clock_mhz": ("a whole number of MHz above 0, or null", _is_megahertz),
    "memory_clock_mhz": ("a whole number of MHz above 0, or null", _is_megahertz),
    "power_limit_w": ("a number of watts above 0, or null", _is_watts),
}
