"""The governor's decisions as the operator service streams them, collected while something else happens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc

from protos import boulton_pb2
from protos.boulton_pb2_grpc import OperatorServiceStub

JOIN_LIMIT_S = 10.0


@contextmanager
def watching(url: str, show: Callable[[boulton_pb2.Decision], None]) -> Iterator[list[boulton_pb2.Decision]]:
    """Collect decisions in a thread while the block runs; `show` is called with each as it comes."""
    decisions: list[boulton_pb2.Decision] = []
    with grpc.insecure_channel(url) as channel:
        stream = OperatorServiceStub(channel).WatchDecisions(boulton_pb2.WatchDecisionsRequest())

        def collect() -> None:
            try:
                for decision in stream:
                    decisions.append(decision)
                    show(decision)
            except grpc.RpcError:
                pass  # the end of the block cancels the stream

        thread = threading.Thread(target=collect, name="decisions")
        thread.start()
        try:
            yield decisions
        finally:
            stream.cancel()
            thread.join(JOIN_LIMIT_S)
