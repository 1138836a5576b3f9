"""The consumer on a real log with a real processor: a database that goes away, stops in between, records that
are gone.
"""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from datetime import timedelta
from pathlib import Path

import pytest

from log.sqlite.dead_letters import SqliteDeadLetters
from log.sqlite.reader import SqliteLogReader
from log.sqlite.retention import Limits
from log.sqlite.schema import FILE
from log.sqlite.writer import SqliteLogWriter
from meshflow.tools.capture import read_captures
from processors.logs.signal import log_processor
from processors.readers.in_process import Consumer
from processors.readers.partition import Processor
from processors.settings import ProcessorSettings
from schemas.dead_letters import Selection
from schemas.errors import ProcessingFailed, SinkRejected, SinkUnavailable
from schemas.otlp.shift import Captured
from schemas.records import Append, Commit, DeadLetter, TopicPartition
from schemas.tables import Block
from schemas.topics import LOGS, SPANS
from schemas.watermark import UNKNOWN, Watermark
from storage.sink import RetryingSink
from tests.meshflow.test_capture_replay import FILES

PANE_NS = 1_000_000_000
SETTINGS = ProcessorSettings(pane=timedelta(seconds=1), wait=0, lookback=timedelta(seconds=3), partitions=1)
TP = TopicPartition(LOGS, 0)
KEEP_ALL = Limits(timedelta(days=365 * 1000), 1 << 40)


class Database:
    """A sink in memory that keeps blocks by token, and can be away."""

    def __init__(self) -> None:
        self.blocks: dict[str, Block] = {}
        self.away = threading.Event()
        self.refuses = False
        self.tried = threading.Event()

    def write(self, block: Block) -> None:
        self.tried.set()
        if self.refuses:
            raise SinkRejected("a wrong schema")
        if self.away.is_set():
            raise SinkUnavailable("connection refused")
        known = self.blocks.setdefault(block.token, block)
        assert known.rows.equals(block.rows)

    def close(self) -> None:
        pass

    def ledger(self, column: str) -> int:
        return sum(
            sum(block.rows.column(column).to_pylist())
            for block in self.blocks.values()
            if block.table == "ledger"
        )


@pytest.fixture(scope="module")
def requests() -> list[Captured]:
    return list(read_captures([FILES[LOGS]]))[:60]


async def fill(folder: Path, requests: list[Captured]) -> None:
    """A log of the requests, ten to a pane, and a tick that closes the last one."""
    now_ns = [1_700_000_000_000_000_000]
    writer = SqliteLogWriter(folder, {LOGS: 1}, KEEP_ALL, clock_ns=lambda: now_ns[0], monotonic_ns=lambda: 0)
    for number, request in enumerate(requests):
        await writer.append([Append(TP, request.message.SerializeToString())])
        now_ns[0] += PANE_NS if number % 10 == 9 else 1
    await writer.append([Append(TP, b"")])
    await writer.close()


def make(tp: TopicPartition, commit: Commit | None) -> Processor:
    return log_processor(tp, SETTINGS, commit)


@asynccontextmanager
async def running(
    folder: Path, sink: RetryingSink | Database
) -> AsyncIterator[tuple[Consumer, "asyncio.Task[None]"]]:
    reader = SqliteLogReader(folder)
    consumer = Consumer(reader, sink, poll_s=0.01)
    await consumer.open(make)
    task = asyncio.create_task(consumer.run())
    yield consumer, task
    consumer.stop()
    if isinstance(sink, RetryingSink):
        sink.stop()
    with suppress(SinkRejected, ProcessingFailed):
        await asyncio.wait_for(task, 30)
    await reader.close()


async def until(database: Database, items: int) -> None:
    async def reached() -> None:
        while database.ledger("received") < items:  # noqa: ASYNC110 - it changes in another thread
            await asyncio.sleep(0.01)

    await asyncio.wait_for(reached(), 30)


async def test_everything_is_processed_once_across_stops(tmp_path: Path, requests: list[Captured]) -> None:
    await fill(tmp_path, requests)
    database = Database()
    items = sum(request.items for request in requests)
    for received in (1, items // 2, items):
        async with running(tmp_path, database):
            await until(database, received)
    assert database.ledger("received") == items
    assert database.ledger("kept") == items
    assert (
        sum(block.rows.num_rows for block in database.blocks.values() if block.table == "otel_logs") == items
    )


async def test_a_database_that_is_away_pauses_and_loses_nothing(
    tmp_path: Path, requests: list[Captured]
) -> None:
    await fill(tmp_path, requests)
    database = Database()
    database.away.set()
    async with running(tmp_path, RetryingSink(database, first_delay_s=0.01)) as (consumer, _):
        await asyncio.to_thread(database.tried.wait, 30)
        assert consumer.commits == {}
        assert database.blocks == {}
        database.away.clear()
        await until(database, sum(request.items for request in requests))


async def test_a_stop_while_the_database_is_away_commits_nothing(
    tmp_path: Path, requests: list[Captured]
) -> None:
    await fill(tmp_path, requests)
    database = Database()
    database.away.set()
    async with running(tmp_path, RetryingSink(database, first_delay_s=30)) as (consumer, task):
        await asyncio.to_thread(database.tried.wait, 30)
    assert task.done()
    assert consumer.commits == {}
    database.away.clear()
    async with running(tmp_path, database):
        await until(database, sum(request.items for request in requests))


async def test_a_block_that_is_refused_ends_the_run(tmp_path: Path, requests: list[Captured]) -> None:
    await fill(tmp_path, requests)
    database = Database()
    database.refuses = True
    async with running(tmp_path, database) as (consumer, task):
        with pytest.raises(SinkRejected):
            await asyncio.wait_for(asyncio.shield(task), 30)
        assert consumer.commits == {}


async def test_records_that_retention_removed_are_counted_as_lost(
    tmp_path: Path, requests: list[Captured]
) -> None:
    await fill(tmp_path, requests)
    removed = 25
    with closing(sqlite3.connect(tmp_path / "log.sqlite")) as connection, connection:
        connection.execute(
            "DELETE FROM records WHERE position IN (SELECT position FROM records ORDER BY position LIMIT ?)",
            (removed,),
        )
    reader = SqliteLogReader(tmp_path)
    await reader.commit(TP, Commit(0, ""))
    await reader.close()
    database = Database()
    async with running(tmp_path, database):
        await until(database, sum(request.items for request in requests[removed:]))
    assert database.ledger("lost") == removed


async def test_the_watermark_is_that_of_the_slowest_span_partition(tmp_path: Path) -> None:
    writer = SqliteLogWriter(tmp_path, {SPANS: 2, LOGS: 1}, KEEP_ALL)
    await writer.close()
    reader = SqliteLogReader(tmp_path)
    consumer = Consumer(reader, Database(), poll_s=1)
    wide = SETTINGS.model_copy(update={"partitions": 2})
    await consumer.open(lambda tp, commit: log_processor(tp, wide, commit))
    commits = {
        number: Commit(
            0, f"next={10 + number} from=0 closed=0 pane_ns=1000 shift_ns={number} at=9 late={7 - number}"
        )
        for number in range(2)
    }
    consumer.commits[TopicPartition(SPANS, 1)] = commits[1]
    assert await consumer.watermark() == UNKNOWN
    consumer.commits[TopicPartition(SPANS, 0)] = commits[0]
    assert await consumer.watermark() == Watermark(stored_until_ns=10_000, final_until_ns=6)
    await reader.close()


async def test_a_record_that_the_disk_has_spoiled_is_set_aside(
    tmp_path: Path, requests: list[Captured]
) -> None:
    await fill(tmp_path, requests)
    with closing(sqlite3.connect(tmp_path / FILE)) as file:
        file.execute(
            "UPDATE records SET payload = x'00ff00ff', codec = 'lz4', size = 1000 WHERE position = (SELECT min(position) + 7 FROM records)"
        )
        file.commit()
    sink = Database()
    async with running(tmp_path, sink) as (_, task):
        while sum(token.startswith("ledger") for token in sink.blocks) < len(requests) / 10:
            assert not task.done()
            await asyncio.sleep(0.01)
    assert sink.ledger("rejected") == 1


async def test_a_letter_that_is_written_again_after_a_crash_is_one_letter(
    tmp_path: Path, requests: list[Captured]
) -> None:
    """Letters are set aside before the blocks are stored, and the commit comes last: a crash in between, and
    every restart within the lookback, writes them again.
    """
    await fill(tmp_path, requests)
    with closing(sqlite3.connect(tmp_path / FILE)) as file:
        file.execute(
            "UPDATE records SET payload = x'00ff00ff', codec = 'lz4', size = 1000 WHERE position = (SELECT min(position) + 7 FROM records)"
        )
        file.commit()
    database, written = Database(), 0
    letters = SqliteDeadLetters(tmp_path)

    async def set_aside(tp: TopicPartition, some: Sequence[DeadLetter]) -> None:
        nonlocal written
        await letters.write(tp, some)
        written += len(some)

    for crashes in (True, True, False, False):
        reader = SqliteLogReader(tmp_path)
        database.refuses = crashes
        consumer = Consumer(reader, database, 0.01, set_aside)
        await consumer.open(make)
        task = asyncio.create_task(consumer.run())
        if crashes:
            with pytest.raises(SinkRejected):
                await asyncio.wait_for(task, 30)
        else:
            await until(database, sum(request.items for request in requests[:7] + requests[8:]) + 1)
            consumer.stop()
            await asyncio.wait_for(task, 30)
        await reader.close()
    found = await letters.find(Selection())
    assert written >= 3
    assert (found.total, [letter.id.offset for letter in found.letters]) == (1, [7])
    assert database.ledger("rejected") == 1
    await letters.close()


async def test_a_panic_of_native_code_in_a_thread_ends_the_run_as_an_error(
    tmp_path: Path, requests: list[Captured]
) -> None:
    """It is no Exception, so a task that waits for it would seem to be cancelled."""

    class Panic(BaseException):
        """As pyo3's PanicException."""

    class Panicking(Database):
        def write(self, block: Block) -> None:
            raise Panic("called unwrap on None")

    await fill(tmp_path, requests)
    async with running(tmp_path, Panicking()) as (consumer, task):
        with pytest.raises(ProcessingFailed, match="called unwrap on None"):
            await asyncio.wait_for(asyncio.shield(task), 30)
        assert consumer.commits == {}
