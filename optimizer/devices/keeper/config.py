"""The keeper's configuration: a TOML file, or flags for a keeper of one or two GPUs."""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from optimizer.devices.keeper.peers import PeerPolicy, own_policy
from optimizer.devices.keeper.permits import Permit
from optimizer.settings_table import SettingsError, SettingsTable

SOCKET = Path("/run/boulton/keeper.sock")
STATE_DIR = Path("/run/boulton/keeper")
LEASE_S = 1.5
_LEASE_RANGE_S = (0.5, 60.0)
_LONGEST_SOCKET_PATH = 107  # what fits into a sockaddr_un
# As NVML writes it. Less of it would name no GPU to the driver, and perhaps one to a reader.
_WHOLE_UUID = re.compile(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LIST_THEM = "`boulton doctor` lists the GPUs of this machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperConfig:
    """What a keeper is told. Contradictions raise SettingsError.

    Args:
        gpus: what is permitted on each GPU, by UUID; no other GPU is touched.
        policy: who may talk to the keeper.
        socket: where it listens.
        socket_group: the group that may open the socket; None: the keeper's own.
        state_dir: where markers are kept; it must outlive the keeper, and a restart of its container.
        lease_s: how long a GPU stays set when its client falls silent.
    """

    gpus: Mapping[str, Permit]
    policy: PeerPolicy = field(default_factory=own_policy)
    socket: Path = SOCKET
    socket_group: int | None = None
    state_dir: Path = STATE_DIR
    lease_s: float = LEASE_S

    def __post_init__(self) -> None:
        if not self.gpus:
            raise SettingsError(
                "no GPU is named: the keeper sets only those that are, by [[gpu]] in --config FILE or by "
                f"--gpu UUID; {_LIST_THEM}"
            )
        wrong = next((uuid for uuid in self.gpus if not _WHOLE_UUID.fullmatch(uuid)), None)
        if wrong is not None:
            raise SettingsError(f"{wrong!r} is not the whole UUID of a GPU, GPU-...; {_LIST_THEM}")
        low, high = _LEASE_RANGE_S
        if not low <= self.lease_s <= high:
            raise SettingsError(f"lease_s must be {low:g} to {high:g}, got {self.lease_s:g}")
        if len(bytes(self.socket)) > _LONGEST_SOCKET_PATH:
            raise SettingsError(f"socket {self.socket}: longer than {_LONGEST_SOCKET_PATH} bytes")


def load_config(path: Path) -> dict[str, object]:
    """Read a file; return what it says as arguments of `KeeperConfig`. Raises SettingsError."""
    table = SettingsTable.load(path)
    values: dict[str, object] = {"gpus": dict(_gpus(table))}
    values |= {key: Path(table.text(key)) for key in ("socket", "state_dir") if key in table}
    if "lease_s" in table:
        values["lease_s"] = table.number("lease_s")
    users, groups = _names(table, "users"), _names(table, "groups")
    socket_group = table.take("socket_group") if "socket_group" in table else None
    table.finish()
    return values | _admission(str(path), users, groups, socket_group)


def check_private(path: Path) -> None:
    """Raise SettingsError when others could write this file: they would have root set GPUs as they like."""
    try:
        found = path.stat()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SettingsError(
            f"{path} belongs to uid {found.st_uid} with mode {stat.S_IMODE(found.st_mode):04o}, so others"
            " could have root set GPUs: chown it to root, and chmod it to 0644"
        )


def admission(where: str, users: Sequence[object], groups: Sequence[object] = ()) -> dict[str, object]:
    """Return who may talk to the keeper as arguments of `KeeperConfig`, by names or numbers."""
    return _admission(where, users, groups, None)


def parse_gpu(text: str) -> tuple[str, Permit]:
    """Read `UUID` or `UUID:LOW-HIGH`, SM clocks in MHz. Raises SettingsError."""
    uuid, colon, clocks = text.partition(":")
    if not colon:
        return uuid, Permit()
    low, _, high = clocks.partition("-")
    if not (low.isdecimal() and high.isdecimal() and 0 < int(low) <= int(high)):
        raise SettingsError(f"--gpu {text}: expected UUID:LOW-HIGH in MHz, such as GPU-...:510-1410")
    return uuid, Permit(sm_clock_mhz=(int(low), int(high)))


def _admission(
    where: str, users: Sequence[object], groups: Sequence[object], socket_group: object
) -> dict[str, object]:
    """Who may talk to the keeper, and the group that may open the socket: the first that is named."""
    uids = [_uid(where, name) for name in users]
    gids = [_gid(where, name) for name in groups]
    policy = PeerPolicy(frozenset(uids), frozenset(gids)) if uids or gids else own_policy()
    if socket_group is not None:
        opens: int | None = _gid(where, socket_group)
    else:
        opens = gids[0] if gids else _group_of(uids[0]) if uids else None
    return {"policy": policy, "socket_group": opens}


def _gpus(table: SettingsTable) -> Iterator[tuple[str, Permit]]:
    listed = table.take("gpu") if "gpu" in table else []
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        table.refuse("gpu", "tables [[gpu]], one a GPU")
    seen: set[str] = set()
    for values in listed:
        gpu = SettingsTable(f"{table.where}: [[gpu]]", values)
        uuid = gpu.text("uuid")
        if uuid in seen:
            gpu.refuse("uuid", "each GPU once")
        seen.add(uuid)
        yield uuid, _permit(gpu)
        gpu.finish()


def _permit(gpu: SettingsTable) -> Permit:
    clocks = _range(gpu, "sm_clock_mhz")
    memory = gpu.numbers("memory_clocks_mhz") if "memory_clocks_mhz" in gpu else ()
    return Permit(
        None if clocks is None else (round(clocks[0]), round(clocks[1])),
        _range(gpu, "power_limit_w"),
        tuple(sorted(map(round, memory))),
    )


def _range(gpu: SettingsTable, key: str) -> tuple[float, float] | None:
    if key not in gpu:
        return None
    low, high = gpu.numbers(key, 2)
    if not 0 < low <= high:
        gpu.refuse(key, "[lowest, highest], both above 0")
    return low, high


def _names(table: SettingsTable, key: str) -> Sequence[object]:
    names = table.take(key) if key in table else []
    if not isinstance(names, list):
        table.refuse(key, "a list of names or numbers")
    return names


def _uid(where: str, name: object) -> int:
    return _id(where, "user", name, lambda user: pwd.getpwnam(user).pw_uid)


def _gid(where: str, name: object) -> int:
    return _id(where, "group", name, lambda group: grp.getgrnam(group).gr_gid)


def _id(where: str, kind: str, name: object, look_up: Callable[[str], int]) -> int:
    if _is_id(name):
        return int(str(name))
    try:
        return look_up(str(name))
    except KeyError:
        raise SettingsError(f"{where}: there is no {kind} {name!r} on this machine") from None


def _is_id(name: object) -> bool:
    return not isinstance(name, bool) and str(name).isdecimal()


def _group_of(uid: int) -> int | None:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return None
