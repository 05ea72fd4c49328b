"""The governor's decisions as the operator service streams them, collected while something else happens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import grpc

from protos import boulton_pb2
from protos.boulton_pb2_grpc import OperatorServiceStub

JOIN_LIMIT_S = 10.0
Show = Callable[[boulton_pb2.Decision], None]


class Watch:
    """Collects decisions in a thread of its own, and shows each as it comes."""

    def __init__(self, show: Show) -> None:
        self.decisions: list[boulton_pb2.Decision] = []
        self._show = show
        self._changed = threading.Condition()

    def collect(self, stream: Iterable[boulton_pb2.Decision]) -> None:
        """Read the stream to its end, which cancelling it brings about."""
        try:
            for decision in stream:
                self._show(decision)
                with self._changed:
                    self.decisions.append(decision)
                    self._changed.notify_all()
        except grpc.RpcError:
            pass

    def wait_until_idle(self, limit_s: float) -> bool:
        """Wait for a window, after those that are known now, in which nothing came and nothing waits."""
        with self._changed:
            known = len(self.decisions)
            return self._changed.wait_for(
                lambda: any(map(_idle, self.decisions[known:])),
                timeout=limit_s,
            )


def _idle(decision: boulton_pb2.Decision) -> bool:
    window = decision.window
    return not (window.arrived or window.completed or window.queued)


@contextmanager
def watching(url: str, show: Show) -> Iterator[Watch]:
    """Collect decisions while the block runs."""
    watch = Watch(show)
    with grpc.insecure_channel(url) as channel:
        stream = OperatorServiceStub(channel).WatchDecisions(boulton_pb2.WatchDecisionsRequest())
        thread = threading.Thread(target=watch.collect, args=(stream,), name="decisions")
        thread.start()
        try:
            yield watch
        finally:
            stream.cancel()
            thread.join(JOIN_LIMIT_S)
