"""Networks exported once for a whole run of the tests, in all of its workers: exporting takes seconds."""

from __future__ import annotations

import fcntl
import os
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from server.export import Exported, export_model
from server.exporting.builtin_models import BUILTIN_MODELS
from server.exporting.request import ExportRequest

LITE0 = "efficientnet-lite0"


class Silence:
    def step(self, text: str) -> AbstractContextManager[None]:
        return nullcontext()


def shared_directory(factory: pytest.TempPathFactory) -> Path:
    """A temporary directory of this run of the tests, the same in all of its workers."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def once(directory: Path, name: str, make: Callable[[Path], Exported]) -> Exported:
    """Return what `make` exports into the directory it is given; whoever comes first makes it."""
    record = directory / f"{name}.exported"
    with (directory / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not record.exists():
            made = make(directory / name)
            record.write_bytes(pickle.dumps(made))
        exported: Exported = pickle.loads(record.read_bytes())  # noqa: S301  # written above
        return exported


def lite0_float(directory: Path) -> Exported:
    """EfficientNet-Lite0 with its real weights from PyTorch, float32 in and out."""
    return once(directory, "lite0-float", lambda root: export_model(ExportRequest(LITE0, root), Silence()))


def lite0_uint8(directory: Path) -> Exported:
    """The same as it would be served: its preprocessing baked in, taking pixels."""
    floats, builtin = lite0_float(directory).path, BUILTIN_MODELS[LITE0]

    def make(root: Path) -> Exported:
        request = ExportRequest(
            str(floats),
            root,
            name=LITE0,
            uint8=True,
            preprocessing=builtin.preprocessing,
            resize=builtin.resize,
        )
        return export_model(request, Silence())

    return once(directory, "lite0-uint8", make)
