"""Where the server is between its start and its end, and what it answers there."""

from __future__ import annotations

from enum import Enum

from server.errors import Unavailable


class Phase(Enum):
    """The phases of a server's life, in order."""

    STARTING = "starting"  # models are being loaded
    SERVING = "serving"
    LEAVING = "leaving"  # load balancers are told to look elsewhere; requests are still answered
    DRAINING = "draining"  # no new requests; what was accepted is finished


class Lifecycle:
    """The server's phase. The daemon moves it; the services ask it."""

    def __init__(self, phase: Phase = Phase.STARTING) -> None:
        self.phase = phase

    @property
    def ready(self) -> bool:
        """Whether new clients should be sent here."""
        return self.phase is Phase.SERVING

    def check_accepting(self) -> None:
        """Raise `Unavailable` unless requests are being accepted now."""
        if self.phase is Phase.DRAINING:
            raise Unavailable("server is shutting down: send the request to another one", retry_after_s=1.0)
        if self.phase is Phase.STARTING:
            raise Unavailable(
                "server is not ready: models are still being loaded, try again", retry_after_s=1.0
            )
