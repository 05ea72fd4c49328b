"""What engines build at their first start, built once and kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path


def built_once(cache: Path, build: Callable[[], float]) -> float:
    """Return the seconds that the first start with this cache took.

    Args:
        cache: where what was built lies, made anew unless a build there came to its end before.
        build: starts the engine with that cache, ends it, and returns how long the start took.
    """
    done = cache / "built.json"
    if not done.exists():
        shutil.rmtree(cache, ignore_errors=True)
        cache.mkdir(parents=True)
        done.write_text(json.dumps({"seconds": build()}), encoding="utf-8")
    return float(json.loads(done.read_text(encoding="utf-8"))["seconds"])
