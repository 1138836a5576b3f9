"""What the second process of ``up`` consists of: processing, jobs, the engine, the SQL port."""

import asyncio
import logging
import os
import signal
import socket
from contextlib import AsyncExitStack
from typing import Any

from console.server import SqlServer
from log.sqlite.dead_letters import SqliteDeadLetters
from log.sqlite.reader import SqliteLogReader
from meshflow.lifecycle import cancel, failure_of, stop_on_signals
from meshflow.run.channel import READY, Channel
from meshflow.run.ending import EXIT_STUCK, end
from meshflow.run.exposition import make_joined
from meshflow.run.watched_engine import WatchedEngine
from meshflow.settings import Settings
from meshflow.wiring import log_retry, make_processor, migrate, open_jobs
from processors.readers.in_process import Consumer
from schemas.errors import LogUnavailable
from schemas.sql import Engine
from storage.engine_code import forget_code
from storage.jobs.schedule import keep_running
from storage.settings import ChdbStore
from storage.sink import RetryingSink, open_sink
from storage.sql.chdb_engine import ChdbEngine
from storage.sql.server_engine import ServerEngine

logger = logging.getLogger(__name__)

_LONGEST_POLL_S = 0.25
_CRASHES = (
    *(signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE),
    *(signal.SIGILL, signal.SIGTRAP, signal.SIGSYS),
)
_SQL_STOP_S = 5.0
"""How long queries that are to end are waited for: nothing is lost with them."""


async def serve(
    settings: Settings, reader: SqliteLogReader, letters: SqliteDeadLetters, listener: int, channel: Channel
) -> None:
    """Process ``reader``'s log, set aside in ``letters`` what cannot be processed, and answer SQL on the
    socket ``listener`` until SIGTERM.

    Raises MeshflowError when it cannot start, ProcessingFailed.
    """
    stop = stop_on_signals(signal.SIGTERM)
    channel.listen()
    beating = asyncio.create_task(channel.beat(), name="beating")
    async with AsyncExitStack() as parts:
        parts.push_async_callback(cancel, beating)
        parts.push_async_callback(reader.close)
        parts.push_async_callback(letters.close)
        for name in await asyncio.to_thread(migrate, settings):
            logger.info("applied %s", name)
        engine = WatchedEngine(
            await asyncio.to_thread(_open_engine, settings), lambda seconds: _give_up(channel, seconds)
        )
        parts.callback(engine.close)
        _die_of_crashes()
        processing = _Processing(settings, reader, letters)
        await processing.start(parts)
        sql = SqlServer(
            settings.console,
            engine,
            socket_=socket.socket(fileno=listener),
            exposition=make_joined(channel.exposition),
        )
        await sql.start()
        forget_code()
        channel.say(READY)
        stopped = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait({stopped, *processing.tasks}, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        error = next((failure_of(task) for task in done - {stopped}), None)
        stopping = asyncio.ensure_future(sql.stop())
        await processing.finish()
        if not await _within(stopping, _SQL_STOP_S):
            logger.warning("a query does not end when it is interrupted; this process ends without it")
            end(channel, error)
        if error:
            raise error


def _open_engine(settings: Settings) -> Engine:
    place = settings.storage.store_place
    return ChdbEngine(str(place.directory.resolve())) if isinstance(place, ChdbStore) else ServerEngine(place)


def _die_of_crashes() -> None:
    """Undo the handlers that chdb has put up: a process that crashed would wait 20 s, for a reporter that
    chdb does not have.
    """
    for number in _CRASHES:
        signal.signal(number, signal.SIG_DFL)


def _give_up(channel: Channel, seconds: float) -> None:
    """End this process: only so can a query be ended that the engine does not end."""
    reason = f"a query has run for {seconds:.0f} s, over console.max_query_time, and does not end"
    logger.critical("%s: this process ends, and is started again", reason)
    channel.fail("QueryStuck", reason)
    logging.shutdown()
    os._exit(EXIT_STUCK)


async def _within(awaited: "asyncio.Future[Any]", timeout_s: float) -> bool:
    done, _ = await asyncio.wait({awaited}, timeout=timeout_s)
    return bool(done)


class _Processing:
    """The tasks that read the log and fill the store."""

    def __init__(self, settings: Settings, reader: SqliteLogReader, letters: SqliteDeadLetters) -> None:
        self._settings = settings
        self._reader = reader
        self._letters = letters
        self._ending = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    async def start(self, parts: AsyncExitStack) -> None:
        """Raises LogUnavailable, SinkUnavailable. What is opened is closed by ``parts``, after
        :meth:`finish`.
        """
        settings = self._settings
        place = settings.storage.store_place
        self._sink = RetryingSink(await asyncio.to_thread(open_sink, place), on_retry=log_retry)
        parts.callback(self._sink.close)
        poll_s = min(settings.processing.pane.total_seconds() / 10, _LONGEST_POLL_S)
        self._consumer = consumer = Consumer(self._reader, self._sink, poll_s, self._letters.write)
        try:
            await consumer.open(lambda tp, commit: make_processor(settings, tp, commit))
        except ValueError as error:  # fewer partitions than the log has, or a commit that is not meshflow's
            raise LogUnavailable(f"the log and the settings do not go together: {error}") from error
        jobs = await asyncio.to_thread(open_jobs, settings)
        for job in jobs:
            parts.callback(job.close)
        self.tasks = {
            asyncio.create_task(consumer.run(), name="processing"),
            asyncio.create_task(keep_running(jobs, consumer.watermark, self._ending), name="jobs"),
        }

    async def finish(self) -> None:
        """Finish the portion in hand."""
        self._ending.set()
        self._consumer.stop()
        self._sink.stop()
        self._letters.stop()
        self._reader.stop()
        await asyncio.wait(self.tasks)
