"""The embedded log: the contract of every log, and what is SQLite's own."""

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from log.sqlite import schema as sqlite_schema
from log.sqlite.reader import SqliteLogReader
from log.sqlite.retention import Limits, shrink
from log.sqlite.writer import SqliteLogWriter
from schemas.errors import LogFull, LogUnavailable, OffsetGone
from schemas.records import Append, Commit
from schemas.units import NS_PER_S
from tests.log.log_contract import ENOUGH, PARTITIONS, A, B, LogContract

LIMITS = Limits(timedelta(days=1), 1 << 30)
ALL = 1 << 40


class SqlitePlace:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now_ns = 1_700_000_000 * NS_PER_S
        self.monotonic_ns = 0

    def writer(self) -> SqliteLogWriter:
        return SqliteLogWriter(
            self.directory,
            PARTITIONS,
            LIMITS,
            clock_ns=lambda: self.now_ns,
            monotonic_ns=lambda: self.monotonic_ns,
        )

    def reader(self) -> SqliteLogReader:
        return SqliteLogReader(self.directory)

    async def open_writer(self) -> SqliteLogWriter:
        return self.writer()

    async def open_reader(self) -> SqliteLogReader:
        return self.reader()

    async def pass_time(self, seconds: float) -> None:
        self.now_ns += round(seconds * NS_PER_S)


@pytest.fixture
def place(tmp_path: Path) -> SqlitePlace:
    return SqlitePlace(tmp_path / "log")


class TestSqliteLog(LogContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> SqlitePlace:
        return SqlitePlace(tmp_path / "log")


async def test_append_time_never_goes_back(place: SqlitePlace) -> None:
    writer, reader = place.writer(), place.reader()
    start_ns = place.now_ns
    for step_ns in (0, 5, -7, 2, 9):
        place.now_ns = start_ns + step_ns
        await writer.append([Append(A, b"x")])
    assert [record.append_time_ns - start_ns for record in await reader.read(A, 0, ENOUGH)] == [0, 5, 5, 5, 9]
    await writer.close()
    place.now_ns = start_ns
    writer = place.writer()
    await writer.append([Append(A, b"x")])
    assert (await reader.read(A, 5, ENOUGH))[0].append_time_ns == start_ns + 9, (
        "a writer that begins anew knows the newest record"
    )
    await writer.close()
    await reader.close()


async def test_a_clock_that_is_set_back_does_not_stop_log_time_nor_ticks(place: SqlitePlace) -> None:
    writer, reader = place.writer(), place.reader()
    await writer.append([Append(A, b"x")])
    start_ns, place.now_ns = place.now_ns, place.now_ns - 600 * NS_PER_S
    for _ in range(10):
        place.now_ns += 10 * NS_PER_S
        place.monotonic_ns += 10 * NS_PER_S
        await writer.tick(5 * NS_PER_S)
    times_s = [(record.append_time_ns - start_ns) / NS_PER_S for record in await reader.read(A, 0, ENOUGH)]
    assert times_s == [0, *range(9, 99, 9)]
    await writer.close()
    await reader.close()


def shrink_file(place: SqlitePlace, limits: Limits) -> int:
    connection = sqlite_schema.connect(place.directory, create=False)
    numbers = list(sqlite_schema.partition_ids(connection).values())
    deleted = sum(shrink(connection, numbers, limits, place.now_ns) for _ in range(10))
    connection.close()
    return deleted


def _checkpoint(place: SqlitePlace) -> None:
    connection = sqlite_schema.connect(place.directory, create=False)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


async def test_a_second_writer_is_answered_who_has_the_log(place: SqlitePlace) -> None:
    writer = place.writer()
    with pytest.raises(LogUnavailable, match=r"in use by another meshflow \(process \d+\)"):
        place.writer()
    await writer.close()
    await place.writer().close()


async def test_a_reader_without_a_log_is_answered_so(tmp_path: Path) -> None:
    with pytest.raises(LogUnavailable, match="there is no log"):
        SqliteLogReader(tmp_path)


async def test_a_file_of_a_newer_version_is_refused(place: SqlitePlace) -> None:
    await place.writer().close()
    with sqlite3.connect(place.directory / sqlite_schema.FILE) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LogUnavailable, match="newer meshflow"):
        place.writer()
    with pytest.raises(LogUnavailable, match="newer meshflow"):
        place.reader()


async def test_more_partitions_can_be_asked_for_later(place: SqlitePlace) -> None:
    writer = place.writer()
    await writer.append([Append(A, b"x")])
    await writer.close()
    writer = SqliteLogWriter(place.directory, {"otlp_spans": 3, "otlp_logs": 1}, LIMITS)
    reader = place.reader()
    assert len(await reader.partitions()) == 5
    assert await reader.end(A) == 1
    await writer.close()
    await reader.close()


async def test_a_full_disk_refuses_the_whole_append_and_recovers(place: SqlitePlace) -> None:
    writer, reader = place.writer(), place.reader()
    await writer.append([Append(A, b"before")])
    noise = random.Random(1).randbytes(400_000)
    writer._connection.execute("PRAGMA max_page_count = 20")
    with pytest.raises(LogUnavailable, match="disk of the log is full"):
        await writer.append([Append(A, b"small"), Append(B, noise)])
    assert await reader.end(A) == 1
    assert await reader.end(B) == 0
    writer._connection.execute("PRAGMA max_page_count = 1000000")
    await writer.append([Append(A, b"after"), Append(B, noise)])
    assert [record.unpack() for record in await reader.read(A, 0, ENOUGH)] == [b"before", b"after"]
    await writer.close()
    await reader.close()


async def test_too_much_waiting_is_refused_as_full(place: SqlitePlace) -> None:
    writer = SqliteLogWriter(place.directory, PARTITIONS, LIMITS, max_pending_bytes=1_000)
    blocker = sqlite3.connect(place.directory / sqlite_schema.FILE, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")  # as a slow disk: the writer waits for it
    first = asyncio.create_task(writer.append([Append(A, bytes(5_000))]))
    await asyncio.sleep(0)
    with pytest.raises(LogFull):
        await writer.append([Append(A, bytes(5_000))])
    blocker.execute("ROLLBACK")
    blocker.close()
    await first
    await writer.append([Append(A, bytes(5_000))])
    await writer.close()


async def test_metadata_of_a_commit_is_bounded(place: SqlitePlace) -> None:
    writer, reader = place.writer(), place.reader()
    with pytest.raises(ValueError, match="4096"):
        await reader.commit(A, Commit(0, "x" * 5_000))
    await writer.close()
    await reader.close()


async def test_age_takes_what_was_committed_past_and_no_more(place: SqlitePlace) -> None:
    writer, reader = place.writer(), place.reader()
    for _ in range(10):
        await writer.append([Append(A, b"x"), Append(B, b"x")])
        place.now_ns += 3_600 * NS_PER_S
    await reader.commit(A, Commit(4, ""))
    assert shrink_file(place, Limits(timedelta(hours=3), 1 << 30)) == 4, (
        "partition 1 has no commit: nothing of it goes"
    )
    assert (await reader.beginning(A), await reader.beginning(B)) == (4, 0)
    await reader.commit(A, Commit(10, ""))
    assert shrink_file(place, Limits(timedelta(hours=3), 1 << 30)) == 3, "what is younger than 3 h stays"
    with pytest.raises(OffsetGone) as gone:
        await reader.read(A, 2, ENOUGH)
    assert (gone.value.wanted, gone.value.beginning) == (2, 7)
    place.now_ns += 100 * 3_600 * NS_PER_S
    shrink_file(place, Limits(timedelta(hours=3), 1 << 30))
    assert (await reader.beginning(A), await reader.end(A)) == (9, 10), (
        "the newest record tells where the partition ends"
    )
    await writer.close()
    await reader.close()


async def test_size_takes_the_oldest_of_all_and_gives_the_disk_back(place: SqlitePlace) -> None:
    writer, reader = place.writer(), place.reader()
    noise = random.Random(1)
    for _ in range(60):
        await writer.append([Append(A, noise.randbytes(1_000_000)), Append(B, noise.randbytes(1_000_000))])
        place.now_ns += 1
    await writer.close()
    file = place.directory / sqlite_schema.FILE
    _checkpoint(place)
    before = file.stat().st_size
    shrink_file(place, Limits(timedelta(days=1), 30_000_000))
    _checkpoint(place)
    assert before > 120_000_000
    assert file.stat().st_size < 100_000_000, "64 MiB of free pages are kept, the rest is the disk's again"
    begin_a, begin_b = await reader.beginning(A), await reader.beginning(B)
    assert begin_a + begin_b >= 90
    assert abs(begin_a - begin_b) <= 32
    assert (await reader.end(A), await reader.end(B)) == (60, 60)
    await reader.close()


_CHILD = """
import asyncio, random, sys
from datetime import timedelta
from pathlib import Path
from schemas.records import Append, TopicPartition
from log.sqlite.writer import SqliteLogWriter
from log.sqlite.retention import Limits

async def write(client):
    number = 0
    while True:
        value = f"{client}:{number}:{seed}".encode() * (1 + number % 200)
        await writer.append([Append(TopicPartition("otlp_spans", p), value) for p in (number % 2, 1 - number % 2)])
        print(f"{client}:{number}:{seed}", flush=True)
        number += 1

async def main():
    await asyncio.gather(*(write(client) for client in range(3)))

seed = sys.argv[2]
writer = SqliteLogWriter(Path(sys.argv[1]), {"otlp_spans": 2, "otlp_metrics": 1}, Limits(timedelta(days=1), 1 << 30))
asyncio.run(main())
"""


async def test_every_acknowledged_append_outlives_kill_9(place: SqlitePlace) -> None:
    acknowledged = await asyncio.to_thread(_kill_writers, place.directory, 4)
    writer, reader = place.writer(), place.reader()
    found = []
    for tp in (A, B):
        records = await reader.read(tp, 0, ALL)
        assert [record.offset for record in records] == list(range(len(records)))
        found.append([_client_line(record.unpack()) for record in records])
    assert sorted(found[0]) == sorted(found[1]), "an append is in both partitions or in none"
    assert len(found[0]) == len(set(found[0]))
    assert set(acknowledged) <= set(found[0])
    assert len(acknowledged) > 20
    await writer.close()
    await reader.close()


def _kill_writers(directory: Path, runs: int) -> list[str]:
    """Lines of the appends that were acknowledged before each kill."""
    chance = random.Random(7)
    acknowledged: list[str] = []
    for run in range(runs):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(directory), str(run)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        acknowledged.append(child.stdout.readline().strip())
        time.sleep(chance.uniform(0.0, 0.15))
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read()
        acknowledged += [line for line in rest[: rest.rfind("\n") + 1].splitlines() if line]
        child.stdout.close()
        child.wait()
    return acknowledged


def _client_line(value: bytes) -> str:
    _, number, _ = value.split(b":", 2)
    copies = 1 + int(number) % 200
    assert len(value) % copies == 0
    line = value[: len(value) // copies]
    assert line * copies == value
    return line.decode()


async def test_no_record_is_stamped_by_a_clock_that_is_years_ahead_for_a_moment(place: SqlitePlace) -> None:
    writer, reader = place.writer(), place.reader()
    start_ns = place.now_ns
    for step_s in (0, 10 * 365 * 24 * 3_600, 0):
        place.now_ns = start_ns + step_s * NS_PER_S
        await writer.append([Append(A, b"x")])
    assert {record.append_time_ns for record in await reader.read(A, 0, ENOUGH)} == {start_ns}
    await writer.close()
    await reader.close()
