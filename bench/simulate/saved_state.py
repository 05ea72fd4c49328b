"""What a policy learned in a rehearsal, kept for the next one on the same GPU and network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from server.errors import ConfigError

_KEYS = ("policy", "gpu", "model")


def load_state(path: Path, policy: str, gpu: str, model: str) -> Mapping[str, object] | None:
    """Return what was saved; None when there is no such file yet.

    Raises ConfigError when it cannot be read, or was learned by another policy or on another GPU or model.
    """
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"--state {path} cannot be read: {error}") from error
    if not isinstance(saved, dict) or not isinstance(saved.get("state"), dict):
        raise ConfigError(f"--state {path} holds no learned state; give a file that --state has written")
    for key, wanted in zip(_KEYS, (policy, gpu, model), strict=True):
        if saved.get(key) != wanted:
            raise ConfigError(f"--state {path} was learned with {key} {saved.get(key)}, not {wanted}")
    state: dict[str, object] = saved["state"]
    return state


def save_state(path: Path, policy: str, gpu: str, model: str, state: Mapping[str, object]) -> None:
    """Write what was learned. Raises ConfigError when the file cannot be written."""
    saved = dict(zip(_KEYS, (policy, gpu, model), strict=True)) | {"state": dict(state)}
    try:
        part = path.with_name(f"{path.name}.part")
        part.write_text(json.dumps(saved), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"--state {path} cannot be written: {error.strerror}") from error
