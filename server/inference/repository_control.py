"""Listing, loading and unloading models over the wire."""

from __future__ import annotations

from collections.abc import Iterable

from protos import grpc_service_pb2 as pb
from server.errors import InvalidArgument, Unimplemented
from server.lifecycle import Lifecycle
from server.models.table import ModelTable


class RepositoryControl:
    """The repository RPCs. Models come from the server's own repository only, never from the wire."""

    def __init__(self, models: ModelTable, lifecycle: Lifecycle) -> None:
        self._models = models
        self._lifecycle = lifecycle

    async def index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        """List every version of every model, or with `ready` those that are served."""
        _check_repository(request.repository_name)
        entries = await self._models.index(only_ready=request.ready)
        models = [
            pb.RepositoryIndexResponse.ModelIndex(
                name=entry.name, version=str(entry.version), state=entry.state, reason=entry.reason
            )
            for entry in entries
        ]
        return pb.RepositoryIndexResponse(models=models)

    async def load(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        """Load or reload the newest version of a model; a failure leaves the loaded one serving."""
        _check_repository(request.repository_name)
        self._lifecycle.check_accepting()
        if request.parameters:
            raise InvalidArgument(
                f"load parameter {_shown(request.parameters)} is not accepted: models and their configuration"
                " come from the server's repository only; put the files there and load without parameters"
            )
        await self._models.load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def unload(self, request: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        """Stop serving a model and finish its requests. No model depends on another here."""
        _check_repository(request.repository_name)
        unknown = sorted(set(request.parameters) - {"unload_dependents"})
        if unknown:
            raise InvalidArgument(
                f"unload parameter {_shown(unknown)} is not accepted, only 'unload_dependents'"
            )
        await self._models.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()


def _check_repository(name: str) -> None:
    if name:
        raise Unimplemented("the server has one model repository: leave repository_name empty")


def _shown(names: Iterable[str]) -> str:
    return ascii(min(names))[:64]
