"""A process that does not outlive the test that started it, whatever becomes of the test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def child(words: Sequence[str | Path], **options: object) -> Iterator[subprocess.Popen[str]]:
    """Start a process as `Popen` does; what still runs at the end of the block is killed."""
    with subprocess.Popen(list(map(str, words)), **options) as process:
        try:
            yield process
        finally:
            process.kill()
