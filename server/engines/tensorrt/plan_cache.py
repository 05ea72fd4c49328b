"""Plans and kernel times kept on disk between starts."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from server.engines.tensorrt.plan_key import GpuIdentity, PlanKey, kernel_times_header, short_digest
from server.engines.tensorrt.sealed_file import NotSealed, read_sealed, write_sealed
from server.engines.tensorrt.toolkit import Toolkit

_LOG = logging.getLogger(__name__)


class PlanCache:
    """A directory of sealed files. What cannot be believed counts as missing, and the log says why.

    Args:
        directory: made when the first file is written.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, model: str, key: PlanKey) -> Path:
        """Where the plan of a model lies; the name tells people what it is, the header decides."""
        gpu = re.sub(r"[^A-Za-z0-9]+", "-", f"{key.gpu.name} {key.gpu.capability}").strip("-")
        return self.directory / f"{model}-{gpu}-{key.digest()}.plan"

    def plan(self, model: str, key: PlanKey) -> bytes | None:
        """Return a plan, None when there is none that can be believed."""
        return _believed(self.path(model, key), key.header())

    def keep_plan(self, model: str, key: PlanKey, plan: bytes) -> Path:
        """Write a plan and return where to. Raises `EngineError`."""
        path = self.path(model, key)
        write_sealed(path, key.header(), plan)
        return path

    def kernel_times(self, toolkit: Toolkit, gpu: GpuIdentity) -> bytes:
        """Return what was learned of a GPU's kernels; empty: nothing."""
        path, header = self._kernel_times(toolkit, gpu)
        return _believed(path, header) or b""

    def keep_kernel_times(self, toolkit: Toolkit, gpu: GpuIdentity, times: bytes) -> None:
        """Write what was learned of a GPU's kernels. Raises `EngineError`."""
        path, header = self._kernel_times(toolkit, gpu)
        write_sealed(path, header, times)

    def _kernel_times(self, toolkit: Toolkit, gpu: GpuIdentity) -> tuple[Path, dict[str, str]]:
        header = {**kernel_times_header(f"{toolkit.name} {toolkit.version}", gpu), "kind": "kernels"}
        return self.directory / f"kernels-{gpu.capability}-{short_digest(header)}.cache", header


def _believed(path: Path, header: dict[str, str]) -> bytes | None:
    try:
        return read_sealed(path, header)
    except FileNotFoundError:
        return None
    except NotSealed as error:
        _LOG.warning("%s; it is not used", error)
        return None
