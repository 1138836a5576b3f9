"""``meshflow repair`` on a damaged log, and what it says where there is none."""

import asyncio
from datetime import timedelta
from pathlib import Path

from click.testing import CliRunner

from log.sqlite.reader import SqliteLogReader
from log.sqlite.retention import Limits
from log.sqlite.writer import SqliteLogWriter
from meshflow.cli import main
from schemas.records import Append, TopicPartition
from schemas.topics import SPANS, TOPICS

A = TopicPartition(SPANS, 0)


def test_what_can_be_read_is_saved(tmp_path: Path) -> None:
    async def fill() -> None:
        writer = SqliteLogWriter(
            tmp_path / "log", dict.fromkeys(TOPICS, 4), Limits(timedelta(days=1), 1 << 30)
        )
        await writer.append([Append(A, b"%d" % number) for number in range(9)])
        busy = CliRunner().invoke(main, ["repair", "--data", str(tmp_path)])
        await writer.close()
        assert busy.exit_code == 1
        assert "is in use by another meshflow" in busy.stderr

    async def read() -> list[bytes]:
        reader = SqliteLogReader(tmp_path / "log")
        records = await reader.read(A, 0, 1 << 20)
        await reader.close()
        return [record.unpack() for record in records]

    asyncio.run(fill())
    with (tmp_path / "log" / "log.sqlite").open("r+b") as file:
        file.write(bytes(1_000))
    done = CliRunner().invoke(main, ["repair", "--data", str(tmp_path)])
    assert (done.exit_code, done.stdout.startswith("9 records are saved, 0 are lost")) == (0, True)
    assert asyncio.run(read()) == [b"%d" % number for number in range(9)]
    missing = CliRunner().invoke(main, ["repair", "--data", "/nowhere"])
    assert (missing.exit_code, missing.stderr.count("\n")) == (1, 1)
