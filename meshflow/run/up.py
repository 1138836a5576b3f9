"""``meshflow up``: the whole of meshflow in two processes.

This one has the receivers and the log. The other has processing, the engine, roll-ups and SQL
(docs/adr/0031), and may die without harm: the next one goes on by the log.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from console.password import check_exposure
from console.port import listen_for_sql
from ingest.server import IngestServer
from log.sqlite.dead_letters import SqliteDeadLetters
from log.sqlite.letters_salvage import save_letters
from log.sqlite.retention import Limits
from log.sqlite.writer import SqliteLogWriter
from meshflow.lifecycle import cancel, failure_of, stop_on_signals, tick
from meshflow.ports import published
from meshflow.run.back_process import BackProcess
from meshflow.run.exposition import make_receiving
from meshflow.run.folders import claimed, keep_private, log_folder
from meshflow.run.replays import keep_replaying
from meshflow.settings import Settings
from schemas.errors import MeshflowError
from schemas.units import to_ns
from storage.settings import ChdbStore

logger = logging.getLogger(__name__)


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
    async with AsyncExitStack() as parts:  # closed in reverse: receivers first, then processing, the log last
        log = log_folder(settings)
        keep_private(settings.storage.data, log, *_store_folder(settings))
        settings = settings.model_copy(update={"console": check_exposure(settings.console)})
        writer = _open_log(settings, log)
        parts.push_async_callback(writer.close)
        await asyncio.to_thread(save_letters, log)
        letters = SqliteDeadLetters(log, settings.storage.dead_letters_max_bytes)
        parts.push_async_callback(letters.close)
        replaying = asyncio.create_task(
            keep_replaying(log, letters, writer, settings.processing.partitions), name="replaying"
        )
        parts.push_async_callback(cancel, replaying)
        ticking = asyncio.create_task(tick(writer, to_ns(settings.processing.pane)), name="ticking")
        parts.push_async_callback(cancel, ticking)
        lock = parts.enter_context(claimed(settings.storage.data))
        listener = parts.enter_context(listen_for_sql(settings.console.host, settings.console.sql_port))
        back = BackProcess(settings, listener, lock, make_receiving())
        parts.push_async_callback(back.stop)
        ingest = IngestServer(settings.ingest, writer, settings.processing.partitions)
        await ingest.start()
        parts.push_async_callback(ingest.stop)
        stopped = asyncio.create_task(stop.wait())
        ends = {stopped, ticking, replaying, back.task}
        ready = asyncio.create_task(back.ready.wait())
        await asyncio.wait({ready, *ends}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            sql_port = listener.getsockname()[1]
            ports = Ports(settings.ingest.host, ingest.grpc_port, ingest.http_port, sql_port, os.getpid())
            parts.enter_context(published(settings.storage.data, ports))
            on_ready(ports)
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        for task in done - {stopped}:
            if isinstance(error := task.exception(), MeshflowError):
                raise error
            raise failure_of(task)


def _store_folder(settings: Settings) -> tuple[Path, ...]:
    place = settings.storage.store_place
    return (place.directory,) if isinstance(place, ChdbStore) else ()


def _open_log(settings: Settings, folder: Path) -> SqliteLogWriter:
    storage = settings.storage
    limits = Limits(storage.log_retention, storage.log_max_bytes)
    return SqliteLogWriter(
        folder, storage.log_topics(), limits, max_pending_bytes=storage.log_max_pending_bytes
    )
