"""A disk without a free byte (real ENOSPC): what writes refuses or waits, and goes on by itself."""

import asyncio
import logging
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from log.spool.format import NEVER_SENT
from log.spool.spool import Spool
from log.sqlite.dead_letters import SqliteDeadLetters
from log.sqlite.reader import SqliteLogReader
from log.sqlite.retention import Limits
from log.sqlite.writer import SqliteLogWriter
from schemas.dead_letters import Selection
from schemas.errors import LogDiskFull, LogUnavailable
from schemas.records import Append, Commit
from tests.log.dead_letter_contract import letter
from tests.log.log_contract import PARTITIONS, A
from tests.support.disks import fill, make_room, small_disk

NOISE = random.Random(1).randbytes(50_000)
LIMITS = Limits(timedelta(days=1), 1 << 30)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 16 << 20) as folder:
        yield folder


async def append_until_full(writer: SqliteLogWriter, disk: Path) -> int:
    """How many appends the log took; the first that it does not is an error of the disk."""
    fill(disk)
    taken = 0
    with pytest.raises(LogDiskFull, match="disk of the log is full"):  # noqa: PT012 - the call of many that fails
        for _ in range(1_000):
            await writer.append([Append(A, NOISE)])
            taken += 1
    return taken


async def test_the_log_refuses_and_goes_on_when_there_is_room(disk: Path) -> None:
    writer, reader = SqliteLogWriter(disk, PARTITIONS, LIMITS), SqliteLogReader(disk)
    taken = 1
    await writer.append([Append(A, NOISE)])
    for _ in range(3):
        taken += await append_until_full(writer, disk)
        with pytest.raises(LogUnavailable):
            await writer.tick(0)
        make_room(disk)
        await writer.append([Append(A, NOISE)])
        taken += 1
    records = await reader.read(A, 0, 1 << 30)
    assert [record.offset for record in records] == list(range(taken))
    assert {record.unpack() for record in records} == {NOISE}
    await writer.close()
    await reader.close()


async def test_a_commit_waits_for_room(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    writer, reader = SqliteLogWriter(disk, PARTITIONS, LIMITS), SqliteLogReader(disk)
    await writer.append([Append(A, NOISE)])
    await append_until_full(writer, disk)
    commits = 0
    waiting = None
    for number in range(1_000):  # what the disk still takes is in the file that SQLite has already
        waiting = asyncio.create_task(reader.commit(A, Commit(number, "")))
        done, _ = await asyncio.wait({waiting}, timeout=5)
        if not done:
            break
        commits += 1
    assert waiting is not None
    assert not waiting.done()
    assert "processing waits to commit: the disk of the log is full" in caplog.text
    make_room(disk)
    await asyncio.wait_for(waiting, 60)
    assert await reader.committed(A) == Commit(commits, "")
    await writer.close()
    await reader.close()


async def test_a_commit_that_waits_ends_with_a_stop(disk: Path) -> None:
    writer, reader = SqliteLogWriter(disk, PARTITIONS, LIMITS), SqliteLogReader(disk)
    await append_until_full(writer, disk)
    reader.stop()
    with pytest.raises(LogDiskFull):  # noqa: PT012 - the call of many that fails
        for number in range(1_000):
            await reader.commit(A, Commit(number, ""))
    await writer.close()
    await reader.close()


async def test_dead_letters_wait_for_room(disk: Path) -> None:
    letters = SqliteDeadLetters(disk)
    await letters.write(A, [letter(0)])
    fill(disk)
    writing = asyncio.create_task(letters.write(A, [letter(number, payload=NOISE) for number in range(1, 9)]))
    done, _ = await asyncio.wait({writing}, timeout=2)
    assert not done
    make_room(disk)
    await asyncio.wait_for(writing, 60)
    assert (await letters.find(Selection())).total == 9
    await letters.close()


def test_the_spool_refuses_and_goes_on_when_there_is_room(disk: Path) -> None:
    spool = Spool(disk / "spool", 1 << 30)
    taken: list[bytes] = []

    def put(number: int) -> None:
        value = b"%d " % number + NOISE
        spool.append([Append(A, value)], [b"%016d" % number], [NEVER_SENT])
        taken.append(value)

    put(0)
    for _ in range(3):
        fill(disk)
        with pytest.raises(LogUnavailable, match="cannot be written: No space left on device"):  # noqa: PT012 - the call of many that fails
            for _ in range(1_000):
                put(len(taken))
        make_room(disk)
        put(len(taken))
    spool.close()
    spool = Spool(disk / "spool", 1 << 30)
    assert [entry.append.value for entry in spool.peek(1 << 30).entries] == taken
    spool.close()
