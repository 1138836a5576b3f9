"""``meshflow ingest``: receivers in front of a log on Kafka, any number of them."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from ingest.server import IngestServer
from log.kafka.writer import KafkaLogWriter
from log.spool.slots import Target
from log.spool.writer import SpoolingWriter
from meshflow import quiet_logs
from meshflow.lifecycle import cancel, failure_of, kafka_place, metrics_port, stop_on_signals, tick
from meshflow.settings import Settings
from schemas.topics import TOPICS
from schemas.units import to_ns


@dataclass(frozen=True, slots=True)
class IngestPorts:
    """Where a running ``meshflow ingest`` listens."""

    host: str
    grpc: int
    http: int
    metrics: tuple[int, ...]
    """One for each process."""


def run_ingest(settings: Settings, on_ready: Callable[[IngestPorts], None]) -> None:
    """Receive OTLP into Kafka until SIGINT or SIGTERM. Raises MeshflowError when it cannot start."""

    async def run() -> None:
        await serve(settings, stop_on_signals(), on_ready)

    asyncio.run(run())


async def serve(
    settings: Settings, stop: asyncio.Event, on_ready: Callable[[IngestPorts], None], reuse_port: bool = False
) -> None:
    """Receive OTLP into Kafka until ``stop``; ``reuse_port`` where other processes share the ports. Raises
    MeshflowError.
    """
    quiet_logs.install()
    async with AsyncExitStack() as parts:  # closed in reverse: receivers first, the log's writer last
        writer = await _open_writer(settings)
        parts.push_async_callback(writer.close)
        ticking = asyncio.create_task(tick(writer, to_ns(settings.processing.pane)), name="ticking")
        parts.push_async_callback(cancel, ticking)
        ingest = IngestServer(
            settings.ingest, writer, settings.processing.partitions, reuse_port, writer.max_record_bytes
        )
        await ingest.start()
        parts.push_async_callback(ingest.stop)
        metrics = await parts.enter_async_context(metrics_port(settings))
        on_ready(IngestPorts(settings.ingest.host, ingest.grpc_port, ingest.http_port, (metrics,)))
        await _first(stop, ticking)


async def _open_writer(settings: Settings) -> KafkaLogWriter | SpoolingWriter:
    """Raises LogUnavailable: Kafka is away and there is no spool, or it is there and not as it has to be."""
    place = kafka_place(settings)
    topics = dict.fromkeys(TOPICS, settings.processing.partitions)
    settings.kafka.client_options()  # raises for certificates that cannot be used

    async def open_kafka() -> KafkaLogWriter:
        return await KafkaLogWriter.open(
            place.bootstrap, topics, settings.ingest.kafka, place.prefix, settings.kafka
        )

    spool = settings.ingest.spool
    if not spool.max_size:
        return await open_kafka()
    return await SpoolingWriter.open(
        spool.path(settings.storage.data),
        open_kafka,
        topics,
        spool,
        Target(place.bootstrap, place.prefix),
        assumed_record_bytes=settings.ingest.kafka.max_record,
    )


async def _first(stop: asyncio.Event, task: "asyncio.Task[None]") -> None:
    """Return at ``stop``. Raises ProcessingFailed should the task fail before."""
    stopped = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait({stopped, task}, return_when=asyncio.FIRST_COMPLETED)
    if task in done:
        raise failure_of(task)
