"""Which models are loaded: loading, swapping and unloading while requests are being answered."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary

from server.engines.engine import Engine
from server.errors import (
    BoultonError,
    CudaLost,
    Internal,
    InvalidArgument,
    NotFound,
    RequestError,
    Unavailable,
)
from server.models.background import BackgroundTasks
from server.models.repository import ModelEntry, Repository, check_model_name
from server.models.service import ModelService, ModelSnapshot
from server.models.spec import spec_of
from server.scheduling.scheduler import Scheduler, SchedulerSettings

__all__ = ["EngineFactory", "IndexEntry", "ModelService", "ModelSnapshot", "ModelTable"]

EngineFactory = Callable[[ModelEntry], Engine]
Clock = Callable[[], float]

MAX_VERSION_DIGITS = 18
MAX_CONTROL_REQUESTS = 64

logger = logging.getLogger("boulton.models")


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One version of one model in the repository.

    `state` is READY, LOADING, UNLOADING or UNAVAILABLE; `reason` says why it is unavailable.
    """

    name: str
    version: int
    state: str
    reason: str


class ModelTable:
    """The loaded models by name, one version each. Belongs to the event loop; disk and engines do not.

    Args:
        repository: where models come from.
        make_engine: turns a version on disk into an engine; slow, called in a thread.
        settings: for every model's scheduler; the batch limit is cut to what the engine can do.
        clock: seconds; deadlines are measured on it.
        drain_timeout_s: how long a replaced or unloaded version may take to finish its requests.
    """

    def __init__(
        self,
        repository: Repository,
        make_engine: EngineFactory,
        settings: SchedulerSettings,
        *,
        clock: Clock = time.monotonic,
        drain_timeout_s: float = 30.0,
    ) -> None:
        self._repository = repository
        self._make_engine = make_engine
        self._settings = settings
        self._clock = clock
        self._drain_timeout_s = drain_timeout_s
        self._services: dict[str, ModelService] = {}
        self._failures: dict[str, str] = {}
        self._changing: dict[tuple[str, int], str] = {}  # versions that come and go, and which they do
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._background = BackgroundTasks(MAX_CONTROL_REQUESTS)
        self._closed = False

    def __iter__(self) -> Iterator[ModelService]:
        return iter(tuple(self._services.values()))

    def get(self, name: str, version: str = "") -> ModelService:
        """Return a loaded model; an empty version means the one that is loaded.

        Raises:
            NotFound: no such model or version is loaded.
            InvalidArgument: the version is not an integer.
        """
        number = parse_version(version)
        service = self._services.get(name)
        if service is None:
            raise unknown_model(name)
        if number is not None and number != service.spec.version:
            raise NotFound(
                f"Request for unknown model: '{name}' version {number} is not found, "
                f"version {service.spec.version} is loaded"
            )
        return service

    def ready(self, name: str, version: str = "") -> bool:
        """Whether a request for this model and version would find it. Raises `InvalidArgument`."""
        try:
            return self.get(name, version) is not None
        except NotFound:
            return False

    def snapshots(self) -> tuple[ModelSnapshot, ...]:
        """Return every loaded model as metrics show it."""
        return tuple(service.snapshot() for service in self)

    async def index(self, *, only_ready: bool = False) -> list[IndexEntry]:
        """Return every version in the repository, and those loaded that are no longer there."""
        on_disk = await asyncio.to_thread(self._repository.index)
        known = {(name, version) for name, versions in on_disk for version in versions}
        known |= {(service.spec.name, service.spec.version) for service in self}
        entries = (self._index_entry(name, version) for name, version in sorted(known))
        return [entry for entry in entries if entry.state == "READY" or not only_ready]

    async def load(self, name: str, version: int | None = None) -> ModelService:
        """Load a version, the newest when None, and put it in place of the one that is loaded.

        A failure leaves the loaded one serving. Cancelling the caller does not stop the load.

        Raises:
            NotFound, InvalidArgument: there is no such model, or no model can have that name.
            Internal: it cannot be loaded.
        """
        check_model_name(name)
        return await self._background.finish(self._load(name, version))

    async def unload(self, name: str) -> None:
        """Stop offering a model and finish its requests. A model that is not loaded is no error.

        Raises:
            NotFound, InvalidArgument: there is no such model, or no model can have that name.
        """
        check_model_name(name)
        await self._background.finish(self._unload(name))

    async def close(self, timeout_s: float) -> bool:
        """Unload everything, for good. Return whether all requests were answered in time."""
        self._closed = True
        services = tuple(self._services.values())
        self._services.clear()
        answered = await asyncio.gather(*(service.retire(timeout_s) for service in services))
        return await self._background.wait(timeout_s) and all(answered)

    async def _load(self, name: str, version: int | None) -> ModelService:
        async with self._lock(name):
            try:
                service = await self._make_service(name, version)
            except Exception as error:
                raise self._load_failed(name, error) from error
            self._put(service)
            return service

    async def _make_service(self, name: str, version: int | None) -> ModelService:
        entry = await asyncio.to_thread(self._repository.entry, name, version)
        with self._change(entry.name, entry.version, "LOADING"):
            engine = await asyncio.to_thread(self._make_engine, entry)
        scheduler = Scheduler(engine, self._settings, clock=self._clock)
        if self._closed:
            scheduler.close()
            raise Unavailable("server is shutting down: models are no longer loaded")
        scheduler.start()
        return ModelService(spec_of(entry, engine), engine, scheduler)

    def _put(self, service: ModelService) -> None:
        name = service.spec.name
        replaced = self._services.get(name)
        self._services[name] = service
        self._failures.pop(name, None)
        logger.info("model '%s' version %d loaded (%s)", name, service.spec.version, service.spec.platform)
        if replaced is not None:
            self._background.start(replaced.retire(self._drain_timeout_s))

    def _load_failed(self, name: str, error: Exception) -> RequestError:
        if isinstance(error, RequestError):
            return error
        if isinstance(error, CudaLost):
            self._settings.on_lost(error)
        serving = "; the version loaded before keeps serving" if name in self._services else ""
        if not isinstance(error, BoultonError):
            logger.error("model '%s' could not be loaded", name, exc_info=error)
            return Internal(f"failed to load '{name}': the server's log has the details{serving}")
        logger.warning("model '%s' could not be loaded: %s", name, error)
        self._failures[name] = self._without_root(str(error))
        return Internal(f"failed to load '{name}': {self._failures[name]}{serving}")

    def _without_root(self, text: str) -> str:
        """Clients learn where a file lies in the repository, not where the repository lies."""
        root = self._repository.root
        return text.replace(f"{root.resolve()}/", "").replace(f"{root}/", "")

    async def _unload(self, name: str) -> None:
        async with self._lock(name):
            service = self._services.pop(name, None)
            if service is None:
                await self._check_known(name)
                return
            with self._change(name, service.spec.version, "UNLOADING"):
                await service.retire(self._drain_timeout_s)
        logger.info("model '%s' version %d unloaded", name, service.spec.version)

    async def _check_known(self, name: str) -> None:
        if name not in dict(await asyncio.to_thread(self._repository.index)):
            raise unknown_model(name)

    def _index_entry(self, name: str, version: int) -> IndexEntry:
        loaded = self._services.get(name)
        if loaded is not None and loaded.spec.version == version:
            return IndexEntry(name, version, "READY", "")
        if (name, version) in self._changing:
            return IndexEntry(name, version, self._changing[name, version], "")
        return IndexEntry(name, version, "UNAVAILABLE", self._failures.get(name, "not loaded"))

    @contextmanager
    def _change(self, name: str, version: int, state: str) -> Iterator[None]:
        """Show in the index what happens to a version; under the lock of its name, so one thing at a time."""
        self._changing[name, version] = state
        try:
            yield
        finally:
            del self._changing[name, version]

    def _lock(self, name: str) -> asyncio.Lock:
        """One lock for each name in use; it goes when the last user is done."""
        return self._locks.setdefault(name, asyncio.Lock())


def unknown_model(name: str) -> NotFound:
    """Say it in the words that clients of the Triton family match."""
    return NotFound(f"Request for unknown model: '{name}' is not found")


def parse_version(version: str) -> int | None:
    """Return the version's number; None for the empty string, which asks for the loaded one."""
    if not version:
        return None
    if not (version.isascii() and version.isdigit()) or len(version) > MAX_VERSION_DIGITS:
        shown = ascii(version[:64])
        raise InvalidArgument(f"model version must be a positive integer or empty, got {shown}")
    return int(version)
