"""The composition root: makes the parts, starts them in order, and takes them down in order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

from optimizer.devices.gpu import Gpu
from server.announcement import Announcement, withdraw, withdraw_own
from server.config import Settings
from server.descriptors import allow_many
from server.engine_factory import device_note, engine_factory
from server.engines.cuda.pycuda_device import open_cuda
from server.errors import BoultonError, ConfigError, CudaLost, RequestError
from server.event_loop import run
from server.front_ends.front_ends import FrontEnds
from server.governing.governor_factory import Foresee, choose_model, make_governing, read_targets
from server.governing.governor_thread import GovernorThread
from server.governing.loop import Governing
from server.governing.operator_service import SERVICE_NAME as OPERATOR
from server.governing.operator_service import OperatorService
from server.governing.plant import LoopCaller
from server.gpu_loss import EXIT_GPU_LOST, GpuLoss
from server.inference.inputs import ImageDecoder, InputReader
from server.inference.pipeline import InferPipeline
from server.inference.service import SERVICE_NAME as INFERENCE
from server.inference.service import InferenceService
from server.lifecycle import Lifecycle, Phase
from server.logs import configure_logging
from server.memory import keep_pages, spare_collector
from server.metrics.endpoint import start_metrics_server
from server.metrics.source import ServerMetrics
from server.models.repository import Repository
from server.models.table import ModelTable
from server.processor import prefer_throughput
from server.scheduling.scheduler import SchedulerSettings
from server.transport.grpc_server import CannotListen, GrpcServer, bracketed
from server.transport.ports import client_port, operator_port
from server.transport.secrets import secrets_warnings
from server.transport.tls import exposure_warning, metrics_warning
from server.wire.cuda_shared_memory import CudaSharedMemory
from server.wire.guarded_mapping import TruncationGuard
from server.wire.shared_memory import SystemSharedMemory
from server.wire.shared_regions import SharedRegions

# The scheduler cuts it to what the engine can take.
ENGINE_LARGEST = 1 << 30

# After the drain only streams that nobody ends are open, and answers on their way to slow clients.
CLOSING_GRACE_S = 2.0
LETTING_GO_S = 5.0

logger = logging.getLogger("boulton.daemon")


def run_daemon(settings: Settings) -> int:
    """Serve until SIGTERM, SIGINT or SIGHUP; a second signal ends the process at once.

    Returns:
        0 after an orderly shutdown, `EXIT_GPU_LOST` after one because the GPU failed for good.

    Raises:
        BoultonError: it could not start.
    """
    notes = keep_pages(), prefer_throughput(), allow_many()
    configure_logging(settings.log_format, settings.log_level)
    for note in notes:
        logger.info("%s", note)
    code = run(serve(settings))
    if code == EXIT_GPU_LOST:
        _leave_at_once(code)
    return code


async def serve(settings: Settings) -> int:
    """Serve in the running event loop. See `run_daemon`."""
    stop = _stop_on_signals()
    loss = GpuLoss(stop, settings.drain_timeout_s + CLOSING_GRACE_S)
    async with AsyncExitStack() as exits:
        exits.callback(loss.over)
        daemon = Daemon(settings, loss.report)
        await daemon.open(exits)
        if await _got_ready(daemon, stop, loss):
            await stop.wait()
            if not loss.happened:
                await daemon.leave()
        logger.info("shutting down: finishing what was accepted")
    logger.info("ended")
    return loss.exit_code


class Daemon:
    """The parts of one server. Made and used inside one event loop.

    Args:
        settings: what was asked for.
        on_lost: told when the GPU failed for good.

    Raises:
        ConfigError: targets or GPU profile cannot be used.
    """

    def __init__(self, settings: Settings, on_lost: Callable[[CudaLost], None] = lambda _: None) -> None:
        self._settings = settings
        self._on_lost = on_lost
        self._targets = read_targets(settings)
        self._engines = engine_factory(settings)
        self._lifecycle = Lifecycle()
        self._models = ModelTable(
            Repository(settings.repository),
            self._engines.make,
            replace(_scheduling(settings), on_lost=on_lost),
            drain_timeout_s=settings.drain_timeout_s,
        )
        self._governing: Governing | None = None
        self._front_ends: FrontEnds | None = None
        self._metrics_port: int | None = None

    async def open(self, exits: AsyncExitStack) -> None:
        """Listen on all ports, answering that nothing is ready; `exits` takes everything down again."""
        inference = self._inference_service(exits)
        if not self._settings.no_metrics:
            self._open_metrics(exits)
        self._grpc = self._client_server(inference)
        self._operator = self._operator_server()
        if self._settings.ready_file is not None:  # not before: who has these ports may have told
            withdraw(self._settings.ready_file)
            exits.callback(withdraw_own, self._settings.ready_file)
        exits.push_async_callback(self._stop_listening)
        exits.push_async_callback(self._wind_down)
        await self._grpc.start()
        await self._operator.start()

    async def get_ready(self) -> None:
        """Load the models, start governing and say so. Raises `BoultonError`."""
        self._warn_of_exposure()
        await self._load_models()
        await self._start_governing()
        spare_collector()
        self._lifecycle.phase = Phase.SERVING
        await self._set_serving(serving=True)
        self._announce()

    async def leave(self) -> None:
        """Tell load balancers to look elsewhere, and serve on until they have, if that is wanted."""
        if not self._settings.shutdown_pause_s:
            return
        self._lifecycle.phase = Phase.LEAVING
        await self._set_serving(serving=False)
        await asyncio.sleep(self._settings.shutdown_pause_s)

    def _inference_service(self, exits: AsyncExitStack) -> InferenceService:
        regions = self._shared_regions(exits)
        exits.callback(regions.close)
        decoder = ImageDecoder()
        exits.callback(decoder.close)
        pipeline = InferPipeline(self._models, self._lifecycle, InputReader(regions, decoder), regions)
        return InferenceService(self._models, self._lifecycle, pipeline, regions)

    def _client_server(self, inference: InferenceService) -> GrpcServer | FrontEnds:
        """Listen for the clients, in this process or through others."""
        settings = self._settings
        port = client_port(settings)
        if not settings.front_ends:
            return GrpcServer(port, {INFERENCE: inference.handler()})
        logs = settings.log_format, settings.log_level
        self._front_ends = FrontEnds(port, logs, settings.front_ends, inference)
        return self._front_ends

    def _shared_regions(self, exits: AsyncExitStack) -> SharedRegions:
        settings = self._settings
        loop = asyncio.get_running_loop()

        def tell_lost(error: CudaLost) -> None:
            loop.call_soon_threadsafe(self._on_lost, error)

        return SharedRegions(
            _system_memory(exits) if settings.shared_memory else None,
            CudaSharedMemory(partial(open_cuda, 0), tell_lost) if settings.cuda_shared_memory else None,
        )

    def _operator_server(self) -> GrpcServer:
        """Listen for the operator; where no port was asked for, any will do."""
        services = {OPERATOR: OperatorService(lambda: self._governing).handler()}
        wanted = operator_port(self._settings)
        try:
            return GrpcServer(wanted, services)
        except CannotListen:
            if self._settings.operator_port is not None:
                raise
        server = GrpcServer(replace(wanted, port=0), services)
        logger.warning("the operator's port %d is in use; it is %d instead", wanted.port, server.port)
        return server

    async def _set_serving(self, *, serving: bool) -> None:
        await self._grpc.set_serving(serving=serving)
        await self._operator.set_serving(serving=serving)

    def _open_metrics(self, exits: AsyncExitStack) -> None:
        source = ServerMetrics(
            self._models, self._engines.served, lambda: self._governing, lambda: self._front_ends
        )
        settings = self._settings
        if (warning := metrics_warning(settings.host)) is not None:
            logger.warning("%s", warning)
        server = start_metrics_server(
            source, settings.host, settings.metrics_port, version=version("boulton")
        )
        exits.callback(server.close)
        self._metrics_port = server.port

    async def _load_models(self) -> None:
        index = await asyncio.to_thread(Repository(self._settings.repository).index)
        names = self._settings.model or tuple(name for name, _ in index)
        if not names:
            where = self._settings.repository
            raise ConfigError(f"no model that can be read is in {where}; `boulton export` puts one there")
        for name in names:
            try:
                await self._models.load(name)
            except RequestError as error:
                raise ConfigError(f"model '{name}' cannot be served: {error}") from error

    async def _start_governing(self) -> None:
        call = LoopCaller(asyncio.get_running_loop())
        device = self._engines.device
        foresight = await self._foresight(device)
        governing = make_governing(self._settings, self._targets, self._models, device, call, foresight)
        if governing is not None:
            self._governing = governing
            await governing.start()
        note = device_note(device)
        if note:
            logger.warning("%s", note)

    async def _foresight(self, device: Gpu) -> Foresee | None:
        """Read what is predicted for the governed model, if that is asked for. Raises `ConfigError`."""
        settings = self._settings
        model = choose_model(settings.govern, self._models) if settings.predictor is not None else None
        if model is None:
            return None
        # Whoever asks for no prediction need not load what reads networks and predictors.
        from server.foresight import foresee

        entry = Repository(settings.repository).entry(model.spec.name, model.spec.version)
        return await asyncio.to_thread(foresee, settings, device, entry.onnx_path)

    def _announce(self) -> None:
        settings = self._settings
        ready = Announcement(
            host=settings.host,
            grpc_port=self._grpc.port,
            metrics_port=self._metrics_port,
            operator_port=self._operator.port,
        )
        if settings.ready_file is not None:
            ready.write_to(settings.ready_file)
        operator = f"{bracketed(settings.operator_address)}:{self._operator.port}"
        logger.info("the operator service listens on %s", operator)
        try:
            ready.tell()
        except OSError as error:
            logger.warning("that it is ready could not be said on stdout: %s", error.strerror)

    async def _wind_down(self) -> None:
        """Finish what was accepted; meanwhile, not after it, give the device back: a batch may never end."""
        await asyncio.gather(self._give_back(), self._drain())

    async def _give_back(self) -> None:
        try:
            if self._governing is not None:
                await self._governing.stop()
        finally:
            await self._let_go()

    async def _let_go(self) -> None:
        """Let go of the device, in a thread that nobody waits for in vain: its driver may hang."""
        try:
            async with asyncio.timeout(LETTING_GO_S):
                await GovernorThread().call(self._engines.served.close)
        except TimeoutError:
            logger.error("%s hangs; it is let go when this process ends", self._engines.device.uuid)

    async def _drain(self) -> None:
        self._lifecycle.phase = Phase.DRAINING
        await self._set_serving(serving=False)
        if not await self._models.close(self._settings.drain_timeout_s):
            logger.warning("some requests were not finished within %g s", self._settings.drain_timeout_s)

    async def _stop_listening(self) -> None:
        await asyncio.gather(self._grpc.stop(CLOSING_GRACE_S), self._operator.stop(CLOSING_GRACE_S))

    def _warn_of_exposure(self) -> None:
        for port in (client_port(self._settings), operator_port(self._settings)):
            tls, tokens = port.tls is not None, port.token_file is not None
            warning = exposure_warning(port.host, tls=tls, tokens=tokens)
            if warning is not None:
                logger.warning("%s", warning)
        for warning in secrets_warnings(self._settings):
            logger.warning("%s", warning)


async def _got_ready(daemon: Daemon, stop: asyncio.Event, loss: GpuLoss) -> bool:
    """Get ready unless told to stop meanwhile, or the GPU fails for good. Raises `BoultonError`."""
    try:
        return await _finished_before(stop, daemon.get_ready())
    except BoultonError:
        if not loss.happened:
            raise
        return False


def _scheduling(settings: Settings) -> SchedulerSettings:
    return SchedulerSettings(
        batch_limit=settings.batch_limit or settings.max_batch or ENGINE_LARGEST,
        max_delay_s=settings.max_delay_ms / 1e3,
        max_queue_images=settings.max_queue_images,
        max_queue_bytes=settings.max_queue_bytes,
    )


def _system_memory(exits: AsyncExitStack) -> SystemSharedMemory:
    """Return shared memory that is guarded until `exits` are taken."""
    guard = TruncationGuard()
    guard.start()
    exits.callback(guard.stop)
    return SystemSharedMemory(guard=guard)


def _stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set; when it is set already, they end the process.

    SIGHUP, which comes when the terminal goes, sets it as well, unless it is ignored, as under nohup. It ends
    nothing: shell and kernel may both send it.
    """
    stop = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if not stop.is_set():
            logger.info("%s: shutting down", number.name)
            stop.set()
        elif number != signal.SIGHUP:
            logger.warning("%s again: ending at once", number.name)
            os._exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    return stop


def _leave_at_once(code: int) -> None:
    """End without the interpreter's own clearing up, which calls into the driver that has failed."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


async def _finished_before(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work unless told to stop meanwhile; return whether it was done. Raises what it raises."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        await working
        return True
    working.cancel()
    await asyncio.wait((working,))
    return False
