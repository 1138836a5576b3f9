"""A damaged log file: all rows that can be read go into a new one, the old one is set aside
(log.sqlite.rescue).
"""

import logging
import shutil
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from log.sqlite import rescue
from log.sqlite import schema as file_format
from log.sqlite import seen as seen_file
from schemas.errors import LogDiskFull, LogUnavailable
from schemas.records import TopicPartition

_LOGGER = logging.getLogger(__name__)

_COLUMNS = "position, append_time_ns, size, codec, headers, payload"
_COPIED_ROWS = 256


@dataclass(slots=True)
class Salvaged:
    """What became of a damaged log."""

    aside: Path
    """Where the damaged file is now."""
    records: int = 0
    lost: int = 0
    """Offsets between a partition's first and last record, or what was last seen of it, without a record."""


def salvage(directory: Path, topics: Mapping[str, int]) -> Salvaged:
    """Save what can be read; the caller holds the log's lock. ``topics``: as a new log would be made.

    Raises LogUnavailable: there is no room for the copy (then all is as it was), or the folder cannot be
    written.
    """
    file = directory / file_format.FILE
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    aside = rescue.free_name(directory / f"{file_format.FILE}.damaged-{stamp}")
    fresh = directory / f"salvage-{stamp}"
    result = Salvaged(aside)
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir()
        work = fresh / "damaged.sqlite"
        rescue.copy_damaged(file, work)
        with closing(file_format.connect(fresh, create=True)) as new:
            _fill(work, new, directory, topics, result)
            new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        rescue.replace(file, aside, fresh / file_format.FILE)
    except (OSError, sqlite3.Error, LogDiskFull) as error:
        raise LogUnavailable(
            f"{file} is damaged, and what can be read of it could not be saved beside it ({error}): there must be room for"
            f" the file twice more; or move {directory} away, then a new log begins"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    with suppress(FileNotFoundError):
        file_format.marker(directory).unlink()
    _LOGGER.error(
        "%s was damaged: %d records were saved into a new file, %d are lost (the ledger counts those that were not"
        " processed); the damaged file is %s and may be removed",
        file,
        result.records,
        result.lost,
        aside,
    )
    return result


def _fill(
    work: Path, new: sqlite3.Connection, directory: Path, topics: Mapping[str, int], result: Salvaged
) -> None:
    old = _open(work)
    try:
        if old is None:
            rescue.mend_first_page(work, new, file_format.PAGE_BYTES)
            old = _open(work)
        partitions = _partitions(old, directory, topics)
        new.execute("BEGIN IMMEDIATE")
        new.executemany("INSERT OR REPLACE INTO partitions VALUES (?, ?, ?, ?, ?)", partitions)
        _copy_identity(old, new, directory)
        new.execute("COMMIT")
        seen = seen_file.load(directory)
        ends = {known.id: known.end for known in seen.partitions.values()} if seen else {}
        for number, *_ in partitions:
            if old is not None:
                _copy_partition(old, new, number, ends.get(number, 0), result)
    finally:
        if old is not None:
            old.close()


def _open(work: Path) -> sqlite3.Connection | None:
    """The damaged file, where SQLite takes it for a log at all."""
    connection = sqlite3.connect(work, isolation_level=None)
    connection.text_factory = file_format.text
    try:
        connection.execute("SELECT position FROM records LIMIT 1").fetchone()
    except sqlite3.DatabaseError as error:
        if (
            file_format.is_damage(error)
            and error.sqlite_errorname != "SQLITE_NOTADB"
            and _has_tables(connection)
        ):
            return connection
        connection.close()
        return None
    return connection


def _has_tables(connection: sqlite3.Connection) -> bool:
    try:
        found = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    except sqlite3.DatabaseError:
        return False
    return {"records", "partitions"} <= {name for (name,) in found}


def _partitions(
    old: sqlite3.Connection | None, directory: Path, topics: Mapping[str, int]
) -> list[tuple[int, str, int, int | None, str | None]]:
    """Rows of the table of partitions: as they are, else as they were seen, else as a new log has them."""
    found: dict[int, tuple[int, str, int, int | None, str | None]] = {}
    taken: set[TopicPartition] = set()
    if old is not None:
        for row in rescue.readable_rows(
            old, "SELECT * FROM partitions WHERE id >= ? ORDER BY id", 1, 1 << 20
        ):
            number, topic, partition, offset, metadata = row
            sound = isinstance(topic, str) and isinstance(partition, int) and topic in topics
            committed = isinstance(offset, int) and isinstance(metadata, str)
            if sound and TopicPartition(topic, partition) not in taken:
                taken.add(TopicPartition(topic, partition))
                found[number] = (
                    number,
                    topic,
                    partition,
                    offset if committed else None,
                    metadata if committed else None,
                )
    seen = seen_file.load(directory)
    for tp, known in (seen.partitions if seen else {}).items():
        if known.id not in found and tp not in taken:
            taken.add(tp)
            found[known.id] = (known.id, *tp, None, None)
    if not seen:
        expected = (
            TopicPartition(topic, partition) for topic, count in topics.items() for partition in range(count)
        )
        for number, tp in enumerate(expected, 1):
            if number not in found and tp not in taken:
                found[number] = (number, *tp, None, None)
    return [found[number] for number in sorted(found)]


def _copy_identity(old: sqlite3.Connection | None, new: sqlite3.Connection, directory: Path) -> None:
    identity = None
    if old is not None:
        with suppress(sqlite3.DatabaseError):
            identity = file_format.identity(old)
    if not identity and (seen := seen_file.load(directory)):
        identity = seen.identity
    if identity:
        new.execute("UPDATE meta SET value = ? WHERE name = 'identity'", (identity,))


def _copy_partition(
    old: sqlite3.Connection, new: sqlite3.Connection, number: int, end: int, result: Salvaged
) -> None:
    begin, beyond = file_format.position(number, 0), file_format.position(number + 1, 0)
    sql = f"SELECT {_COLUMNS} FROM records WHERE position >= ? AND position < {beyond} ORDER BY position"
    rows: list[tuple[Any, ...]] = []
    first, last, copied = None, end - 1, 0
    for row in rescue.readable_rows(old, sql, begin, beyond):
        offset = file_format.offset_of(row[0])
        if not file_format.is_sound(row):
            continue
        first = offset if first is None else first
        last = max(last, offset)
        copied += 1
        rows.append(row)
        if len(rows) >= _COPIED_ROWS:
            _insert(new, rows)
            rows = []
    _insert(new, rows)
    result.records += copied
    result.lost += last + 1 - (first or 0) - copied


def _insert(new: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
    new.execute("BEGIN IMMEDIATE")
    new.executemany("INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?, ?, ?)", rows)
    new.execute("COMMIT")
