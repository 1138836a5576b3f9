"""``meshflow ingest`` and ``meshflow process``: receivers and workers around a log on Kafka, any number of each."""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client import start_http_server

from ingest.dead_letters import DeadLetterWriter
from ingest.kafka import KafkaLogWriter
from ingest.server import IngestServer
from meshflow import quiet_logs
from meshflow.settings import Settings
from meshflow.wiring import (
    ProcessingFailed,
    cancel,
    keep_rolling_up,
    make_processor,
    migrate,
    raise_from,
    stop_on_signals,
    tell_retry,
    tick,
)
from processors.app import ProcessApp, build_app, serve
from processors.panes import DeadLetter
from schemas.errors import AddressInUse, LogUnavailable, MeshflowError
from schemas.log import TopicPartition
from schemas.topics import TOPICS
from schemas.units import to_ns
from storage.client import open_client
from storage.rollups import run_rollups
from storage.settings import KafkaLog
from storage.sink import RetryingSink, open_sink

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IngestPorts:
    """Where a running ``meshflow ingest`` listens."""

    host: str
    grpc: int
    http: int
    metrics: int


def run_ingest(settings: Settings, on_ready: Callable[[IngestPorts], None]) -> None:
    """Receive OTLP into Kafka until SIGINT or SIGTERM. Raises MeshflowError when it cannot start."""
    asyncio.run(_ingest(settings, on_ready))


def run_process(settings: Settings, on_ready: Callable[[int], None]) -> None:
    """Be one worker of the group until SIGINT or SIGTERM; ``on_ready`` gets the port of /metrics.

    Raises MeshflowError when it cannot start, LogUnavailable when the log or the settings do not fit, ProcessingFailed for an error that
    trying again would not mend. A thread may still wait for brokers then: end the process by ``os._exit``.
    """
    asyncio.run(_process(settings, on_ready))


async def _ingest(settings: Settings, on_ready: Callable[[IngestPorts], None]) -> None:
    stop = stop_on_signals()
    quiet_logs.install()
    place = _kafka(settings)
    async with AsyncExitStack() as parts:  # closed in reverse: receivers first, the log's writer last
        topics = dict.fromkeys(TOPICS, settings.processing.partitions)
        writer = await KafkaLogWriter.open(place.bootstrap, topics, settings.ingest.kafka, place.prefix)
        parts.push_async_callback(writer.close)
        ticking = asyncio.create_task(tick(writer, to_ns(settings.processing.pane)), name="ticking")
        parts.push_async_callback(cancel, ticking)
        ingest = IngestServer(settings.ingest, writer, settings.processing.partitions)
        await ingest.start()
        parts.push_async_callback(ingest.stop)
        metrics = parts.enter_context(_metrics(settings))
        on_ready(IngestPorts(settings.ingest.host, ingest.grpc_port, ingest.http_port, metrics))
        await _first(stop, ticking)


async def _process(settings: Settings, on_ready: Callable[[int], None]) -> None:
    stop = stop_on_signals()
    quiet_logs.install()
    place = _kafka(settings)
    async with AsyncExitStack() as parts:
        for name in await asyncio.to_thread(migrate, settings):
            logger.info("applied %s", name)
        sink = RetryingSink(await asyncio.to_thread(open_sink, settings.storage.store_place), on_retry=tell_retry)
        parts.callback(sink.close)
        letters = DeadLetterWriter(place.bootstrap, place.prefix)
        parts.push_async_callback(letters.close)

        async def set_aside(tp: TopicPartition, dead: Sequence[DeadLetter]) -> None:
            await letters.write(tp, [(letter.offset, letter.reason) for letter in dead])

        app = build_app(
            place.bootstrap,
            place.prefix,
            settings.processing,
            lambda tp, commit: make_processor(settings, tp, commit),
            sink=sink,
            set_aside=set_aside,
        )
        parts.callback(sink.stop)  # ends the threads that wait for the database
        client = await asyncio.to_thread(open_client, settings.storage.store_place)
        parts.callback(client.close)
        stop_rolling_up = asyncio.Event()
        rolling_up = asyncio.create_task(_roll_up(settings, app, client, stop_rolling_up), name="rolling up")

        async def finish() -> None:
            stop_rolling_up.set()
            await rolling_up

        parts.push_async_callback(finish)
        on_ready(parts.enter_context(_metrics(settings)))
        try:
            clean = await serve(app, stop)
        except MeshflowError:
            raise
        except Exception as error:
            logger.critical("processing failed", exc_info=error)
            raise ProcessingFailed(f"processing failed: {type(error).__name__}: {error}") from error
    if not clean:
        raise ProcessingFailed("stopped before all in hand was stored or committed; the next worker reads it again")


async def _roll_up(settings: Settings, app: ProcessApp, client: Any, stop: asyncio.Event) -> None:
    """Roll closed hours up, where this worker is the one to do it: the one that has the first partition of spans."""
    loop = asyncio.get_running_loop()

    def roll_up() -> int:
        watermark_ns = asyncio.run_coroutine_threadsafe(app.watermark_ns(), loop).result()
        return run_rollups(client, watermark_ns=watermark_ns, settings=settings.storage) if watermark_ns else 0

    await keep_rolling_up(roll_up, stop)


async def _first(stop: asyncio.Event, task: "asyncio.Task[None]") -> None:
    """Return when told to stop. Raises ProcessingFailed should the task fail before."""
    stopped = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait({stopped, task}, return_when=asyncio.FIRST_COMPLETED)
    if task in done:
        raise_from(task)


@contextmanager
def _metrics(settings: Settings) -> Iterator[int]:
    """/metrics, in a thread of its own; its port."""
    host, port = settings.console.host, settings.console.metrics_port
    try:
        server, thread = start_http_server(port, host)
    except OSError as error:
        raise AddressInUse(f"{host}:{port} (console.metrics_port) cannot be listened on: {os.strerror(error.errno or 0)}") from error
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _kafka(settings: Settings) -> KafkaLog:
    place = settings.storage.log_place
    if not isinstance(place, KafkaLog):
        raise LogUnavailable("`ingest` and `process` need a log on Kafka: MESHFLOW_LOG=kafka://HOST:PORT,... (storage.log)")
    return place
