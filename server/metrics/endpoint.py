"""Prometheus metrics on a port of their own. Snapshots are read when somebody scrapes, and only then."""

from __future__ import annotations

import errno
import logging
import socket
import threading
from collections.abc import Iterator
from socketserver import TCPServer, ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from server.errors import ConfigError
from server.metrics.device_families import device_families
from server.metrics.families import build_family, front_end_families, governor_families, model_families
from server.metrics.values import (
    DeviceMetrics,
    FrontEndMetrics,
    GovernorMetrics,
    MetricsSource,
    ModelMetrics,
    RunningTotals,
    Totals,
    add_record,
)

__all__ = [
    "DeviceMetrics",
    "FrontEndMetrics",
    "GovernorMetrics",
    "MetricsServer",
    "MetricsSource",
    "ModelMetrics",
    "RunningTotals",
    "SnapshotCollector",
    "Totals",
    "add_record",
    "start_metrics_server",
]

SCRAPE_TIMEOUT_S = 10.0
STOP_POLL_S = 0.1

logger = logging.getLogger("boulton.metrics")


class SnapshotCollector(Collector):
    """What `prometheus_client` asks at every scrape."""

    def __init__(self, source: MetricsSource, version: str) -> None:
        self._source = source
        self._version = version

    def describe(self) -> Iterator[Metric]:
        """Name nothing beforehand, so that registering reads nothing."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Read the snapshots."""
        yield build_family(self._version)
        yield from model_families(self._source.models())
        yield from device_families(self._source.device())
        governor = self._source.governor()
        if governor is not None:
            yield from governor_families(governor)
        front_ends = self._source.front_ends()
        if front_ends is not None:
            yield from front_end_families(front_ends)


class MetricsServer:
    """A running metrics server; made by `start_metrics_server`."""

    def __init__(self, server: WSGIServer) -> None:
        self._server = server
        self._thread = threading.Thread(
            target=server.serve_forever, args=(STOP_POLL_S,), name="metrics", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop listening. Idempotent; a scrape under way is finished by its own thread."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


def start_metrics_server(
    source: MetricsSource, host: str, port: int, *, version: str = "unknown"
) -> MetricsServer:
    """Serve metrics over HTTP, in threads of their own.

    Args:
        source: read at every scrape.
        host: address to listen on.
        port: 0 takes a free one.
        version: of Boulton, for `boulton_build_info`.

    Raises:
        ConfigError: the port is taken, or the address is not this machine's.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SnapshotCollector(source, version))
    ProcessCollector(registry=registry)
    return MetricsServer(_listen(host.strip("[]"), port, registry))


def _listen(host: str, port: int, registry: CollectorRegistry) -> WSGIServer:
    try:
        server_class = _Server6 if _family(host, port) is socket.AF_INET6 else _Server
        return make_server(host, port, make_wsgi_app(registry), server_class, _Handler)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"cannot serve metrics on {host}:{port}: {_remedy(error)}") from error


def _family(host: str, port: int) -> int:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]


def _remedy(error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError):  # no name that could be looked up
        return f"{error}; choose an address of this machine with --host"
    if error.errno == errno.EADDRINUSE:
        return "the port is in use; choose another with --metrics-port, or 0 for a free one"
    if error.errno == errno.EACCES:
        return "ports below 1024 need privileges; choose another with --metrics-port"
    return f"{error.strerror or error}; choose an address of this machine with --host"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        """Bind without looking up this machine's name, which may take seconds."""
        TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """A scraper that hangs up or says nothing is no trouble of ours."""
        logger.debug("a scrape by %s ended early: %s", client_address, request, exc_info=True)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = SCRAPE_TIMEOUT_S  # a client that says nothing does not keep its thread

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Scrapes are not news."""

    def address_string(self) -> str:
        """Look no names up."""
        return str(self.client_address[0])
