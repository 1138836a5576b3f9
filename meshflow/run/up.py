"""``meshflow up``: receivers, log, processing, store and SQL in one process. The one place where the packages
are put together.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from console.server import SqlServer
from ingest.server import IngestServer
from log.sqlite.dead_letters import SqliteDeadLetters
from log.sqlite.reader import SqliteLogReader
from log.sqlite.retention import Limits
from log.sqlite.writer import SqliteLogWriter
from meshflow.lifecycle import cancel, raise_from, stop_on_signals, tick
from meshflow.ports import published
from meshflow.run.replays import keep_replaying
from meshflow.settings import Settings
from meshflow.wiring import keep_rolling_up, make_processor, migrate, tell_retry
from processors.readers.in_process import Consumer
from schemas.errors import LogUnavailable
from schemas.sql import Engine
from schemas.units import to_ns
from storage.client import open_client
from storage.jobs.rollups import run_rollups
from storage.settings import ChdbStore, SqliteLog, without_password
from storage.sink import RetryingSink, open_sink
from storage.sql.chdb_engine import ChdbEngine
from storage.sql.server_engine import ServerEngine

logger = logging.getLogger(__name__)

_LONGEST_POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a running meshflow answers, as ports.json has it."""

    host: str
    grpc: int
    http: int
    sql: int
    pid: int


def run(settings: Settings, on_ready: Callable[[Ports], None]) -> None:
    """Run until SIGINT or SIGTERM; a second one ends at once. Raises MeshflowError when it cannot start,
    ProcessingFailed.
    """
    asyncio.run(_run(settings, on_ready))


async def _run(settings: Settings, on_ready: Callable[[Ports], None]) -> None:
    stop = stop_on_signals()
    async with AsyncExitStack() as parts:  # closed in reverse: receivers first, the log's writer last
        log = _log_folder(settings)
        writer = _open_log(settings, log)
        parts.push_async_callback(writer.close)
        letters = SqliteDeadLetters(log, settings.storage.dead_letters_max_bytes)
        parts.push_async_callback(letters.close)
        replaying = asyncio.create_task(
            keep_replaying(log, letters, writer, settings.processing.partitions), name="replaying"
        )
        parts.push_async_callback(cancel, replaying)
        for name in await asyncio.to_thread(migrate, settings):
            logger.info("applied %s", name)
        engine = await asyncio.to_thread(_open_engine, settings)
        parts.callback(engine.close)
        ending = asyncio.Event()
        processing = await _start_processing(settings, log, letters, parts, ending)
        ticking = asyncio.create_task(tick(writer, to_ns(settings.processing.pane)), name="ticking")
        parts.push_async_callback(cancel, ticking)
        sql = SqlServer(settings.console, engine)
        await sql.start()
        parts.push_async_callback(sql.stop)
        parts.callback(ending.set)  # before sql.stop, which interrupts whatever reads
        ingest = IngestServer(settings.ingest, writer, settings.processing.partitions)
        await ingest.start()
        parts.push_async_callback(ingest.stop)
        ports = Ports(settings.ingest.host, ingest.grpc_port, ingest.http_port, sql.port, os.getpid())
        parts.enter_context(published(settings.storage.data, ports))
        on_ready(ports)
        stopped = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait(
            {stopped, ticking, replaying, *processing}, return_when=asyncio.FIRST_COMPLETED
        )
        stop.set()
        for task in done - {stopped}:
            raise_from(task)


def _open_engine(settings: Settings) -> Engine:
    place = settings.storage.store_place
    return ChdbEngine(str(place.directory.resolve())) if isinstance(place, ChdbStore) else ServerEngine(place)


def _log_folder(settings: Settings) -> Path:
    place = settings.storage.log_place
    if not isinstance(place, SqliteLog):
        raise LogUnavailable(
            f"`up` keeps its log in SQLite; storage.log = {without_password(settings.storage.log)!r} is for the distributed mode"
        )
    return place.directory


def _open_log(settings: Settings, folder: Path) -> SqliteLogWriter:
    storage = settings.storage
    limits = Limits(storage.log_retention, storage.log_max_bytes)
    return SqliteLogWriter(
        folder, storage.log_topics(), limits, max_pending_bytes=storage.log_max_pending_bytes
    )


async def _start_processing(
    settings: Settings, log: Path, letters: SqliteDeadLetters, parts: AsyncExitStack, ending: asyncio.Event
) -> "set[asyncio.Task[None]]":
    """The tasks that read the log and fill the store; they end with ``parts``, roll-ups already at
    ``ending``.
    """
    sink = RetryingSink(await asyncio.to_thread(open_sink, settings.storage.store_place), on_retry=tell_retry)
    parts.callback(sink.close)
    reader = SqliteLogReader(log)
    parts.push_async_callback(reader.close)
    poll_s = min(settings.processing.pane.total_seconds() / 10, _LONGEST_POLL_S)
    consumer = Consumer(reader, sink, poll_s, letters.write)
    try:
        await consumer.open(lambda tp, commit: make_processor(settings, tp, commit))
    except ValueError as error:  # fewer partitions than the log has, or a commit that is not meshflow's
        raise LogUnavailable(f"the log in {log} and the settings do not go together: {error}") from error
    client = await asyncio.to_thread(open_client, settings.storage.store_place)
    parts.callback(client.close)
    tasks = {
        asyncio.create_task(consumer.run(), name="processing"),
        asyncio.create_task(
            keep_rolling_up(
                lambda: run_rollups(client, watermark_ns=consumer.watermark_ns, settings=settings.storage),
                ending,
            ),
            name="rolling up",
        ),
    }

    async def finish() -> None:
        ending.set()
        consumer.stop()
        sink.stop()
        letters.stop()
        reader.stop()
        await asyncio.wait(tasks)

    parts.push_async_callback(finish)
    return tasks
