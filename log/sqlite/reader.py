"""The embedded log, reading side: schemas.records.LogReader on one SQLite file (docs/adr/0010).

Readers have connections of their own, which the writer's transactions never block (WAL).
"""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import orjson

from log.sqlite import schema as file_format
from schemas.errors import LogDiskFull, LogUnavailable, OffsetGone
from schemas.records import Commit, Record, TopicPartition

_METADATA_BYTES = 4096
_RECORD_OVERHEAD_BYTES = 128
_RETRY_S = 1.0
_LOGGER = logging.getLogger(__name__)
_T = TypeVar("_T")


class SqliteLogReader:
    """A reader of a log folder, in the writer's process or another one."""

    def __init__(self, directory: Path) -> None:
        """Raises LogUnavailable when there is no log."""
        self._file = directory / file_format.FILE
        self._connection = file_format.connect(directory, create=False)
        try:
            self._ids = file_format.partition_ids(self._connection)
        except sqlite3.Error as error:
            raise file_format.unavailable(self._file, error) from error
        self._stopping = threading.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-log-reader")

    async def partitions(self) -> list[TopicPartition]:
        """See schemas.records.LogReader.partitions."""
        self._ids = await self._call(lambda: file_format.partition_ids(self._connection))
        return list(self._ids)

    async def beginning(self, tp: TopicPartition) -> int:
        """See schemas.records.LogReader.beginning."""
        number = self._id(tp)
        return await self._call(lambda: file_format.beginning(self._connection, number))

    async def end(self, tp: TopicPartition) -> int:
        """See schemas.records.LogReader.end."""
        number = self._id(tp)
        return (await self._call(lambda: file_format.newest(self._connection, number)))[0]

    async def read(self, tp: TopicPartition, offset: int, max_bytes: int) -> list[Record]:
        """See schemas.records.LogReader.read; ``max_bytes`` counts unpacked payload, which is what the caller
        will hold.
        """
        number = self._id(tp)
        return await self._call(lambda: self._read(number, offset, max_bytes))

    async def committed(self, tp: TopicPartition) -> Commit | None:
        """See schemas.records.LogReader.committed."""
        number = self._id(tp)
        sql = "SELECT committed_offset, committed_metadata FROM partitions WHERE id = ?"
        offset, metadata = await self._call(lambda: self._connection.execute(sql, (number,)).fetchone())
        return None if offset is None else Commit(offset, metadata)

    async def commit(self, tp: TopicPartition, commit: Commit) -> None:
        """See schemas.records.LogReader.commit; while the disk is full, wait.

        Raises ValueError when the metadata is over 4 KB, LogUnavailable once :meth:`stop` was called.
        """
        if len(commit.metadata.encode()) > _METADATA_BYTES:
            raise ValueError(f"commit metadata over {_METADATA_BYTES} bytes")
        sql = "UPDATE partitions SET committed_offset = ?, committed_metadata = ? WHERE id = ?"
        row = (commit.offset, commit.metadata, self._id(tp))
        told = False
        while True:
            try:
                await self._call(lambda: self._connection.execute(sql, row))
            except LogDiskFull as error:
                if self._stopping.is_set():
                    raise
                if not told:
                    _LOGGER.warning("processing waits to commit: %s", error)
                told = True
                await asyncio.to_thread(self._stopping.wait, _RETRY_S)
            else:
                return

    def stop(self) -> None:
        """End waiting for a disk: a commit that fails from now on raises."""
        self._stopping.set()

    async def close(self) -> None:
        """See schemas.records.LogReader.close."""
        await asyncio.to_thread(self._thread.shutdown)
        self._connection.close()

    def _id(self, tp: TopicPartition) -> int:
        try:
            return self._ids[tp]
        except KeyError:
            raise LogUnavailable(f"the log has no partition {tp.partition} of topic {tp.topic}") from None

    async def _call(self, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise file_format.unavailable(self._file, error) from error

    def _read(self, number: int, offset: int, max_bytes: int) -> list[Record]:
        """Ends before a gap and before what cannot be read; there it raises OffsetGone, which is counted."""
        wanted, beyond = file_format.position(number, offset), file_format.position(number + 1, 0)
        records: list[Record] = []
        taken = 0
        try:
            rows = self._connection.execute(_SELECT, (wanted, beyond))
            for row in rows:
                if row[0] != wanted or not file_format.is_sound(row):
                    break
                records.append(_record(row))
                wanted += 1
                taken += records[-1].size + _RECORD_OVERHEAD_BYTES
                if taken >= max_bytes:
                    break
            else:
                return records
            rows.close()
        except sqlite3.DatabaseError as error:
            if not file_format.is_damage(error):
                raise
            if not records:
                self._skip(number, wanted, beyond, error)
        if not records:
            raise OffsetGone(offset, file_format.offset_of(max(row[0], wanted + 1)))
        return records

    def _skip(self, number: int, bad: int, beyond: int, error: sqlite3.DatabaseError) -> None:
        """Raises OffsetGone with the next record that can be read, LogDamaged where there is none."""
        sql = _SELECT.replace("position < ?", f"position < {beyond}")
        following = file_format.next_readable(self._connection, sql, bad, beyond)
        if following is None:
            file_format.note_damage(self._file.parent)
            raise file_format.unavailable(self._file, error) from error
        _LOGGER.error("%s is damaged (%s): records of partition %d are skipped", self._file, error, number)
        raise OffsetGone(file_format.offset_of(bad), file_format.offset_of(following))


_SELECT = (
    "SELECT position, append_time_ns, size, codec, headers, payload FROM records"
    " WHERE position >= ? AND position < ? ORDER BY position"
)


def _record(row: tuple[Any, ...]) -> Record:
    position, time_ns, size, codec, text, payload = row
    headers, labels = _headers(text) if text else ({}, {})
    return Record(file_format.offset_of(position), time_ns, payload, size, codec, headers, labels=labels)


def _headers(text: str) -> tuple[dict[str, int], dict[str, str]]:
    """Counts and labels, which one JSON object holds: numbers and texts."""
    counts, labels = {}, {}
    for name, value in orjson.loads(text).items():
        if isinstance(value, str):
            labels[name] = value
        else:
            counts[name] = value
    return counts, labels
