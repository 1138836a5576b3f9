"""The embedded log's file: its tables, how it is opened, and how positions in it are numbered.

One table holds the records of all partitions. A record's rowid is ``partition id << 48 | offset``, so each
partition is one run of the table's B-tree: no second index, and appends and reads touch neighbouring pages.
The newest record of a partition is never deleted, so the run itself says where a partition begins and ends.
"""

import fcntl
import os
import sqlite3
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from schemas.errors import LogDamaged, LogDiskFull, LogUnavailable
from schemas.records import TopicPartition

FILE = "log.sqlite"
LOCK = "log.lock"
VERSION = 1
CODECS = ("", "lz4")
"""How payloads may be packed."""
OFFSET_BITS = 48
PAGE_BYTES = 16 << 10  # 4 KiB costs 5.5 ms of CPU a MB written, 16 KiB 3.1, 32 KiB 2.6 (docs/adr/0010)
_WAL_BYTES = 16 << 20

_TABLES = """
CREATE TABLE IF NOT EXISTS partitions (
    id INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    committed_offset INTEGER,
    committed_metadata TEXT,
    UNIQUE (topic, partition)
);
CREATE TABLE IF NOT EXISTS records (
    position INTEGER PRIMARY KEY,
    append_time_ns INTEGER NOT NULL,
    size INTEGER NOT NULL,
    codec TEXT NOT NULL,
    headers TEXT,
    payload BLOB NOT NULL
);
"""


_META = "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)"
_DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_MOST_BYTES = 1 << 31
_MARKER = "log.damaged"


class LogInUse(LogUnavailable):
    """Another process writes this log."""


def position(partition_id: int, offset: int) -> int:
    """Rowid of a record."""
    return partition_id << OFFSET_BITS | offset


def offset_of(row_position: int) -> int:
    """Offset of the record with this rowid."""
    return row_position & (1 << OFFSET_BITS) - 1


def connect(path: Path, *, create: bool) -> sqlite3.Connection:
    """A connection (usable from any one thread at a time) that commits by statement or by explicit BEGIN.

    Raises LogUnavailable when there is no log, when it is not one, or when a newer meshflow wrote it.
    """
    file = path / FILE
    if not create and not file.exists():
        raise LogUnavailable(f"there is no log at {file}")
    try:
        connection = sqlite3.connect(file, timeout=30, isolation_level=None, check_same_thread=False)
        connection.text_factory = text
        if create:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(
            "PRAGMA synchronous = FULL"
        )  # fsync of the WAL at each commit: an acknowledgement survives power loss
        connection.execute(
            "PRAGMA secure_delete = OFF"
        )  # on in Debian's build: it would overwrite what retention frees
        connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_BYTES // PAGE_BYTES}")
        connection.execute(f"PRAGMA journal_size_limit = {4 * _WAL_BYTES}")
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found > VERSION:
            raise LogUnavailable(
                f"{file} was written by a newer meshflow (version {found}, this one knows {VERSION})"
            )
        if create and found < VERSION:
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
            _sync_directory(path)
        if create and not identity(connection):
            connection.execute(_META)
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('identity', ?)", (uuid.uuid4().hex,))
    except sqlite3.Error as error:
        raise unavailable(file, error) from error
    return connection


def identity(connection: sqlite3.Connection) -> str:
    """What was made up for this log when it was made; "" for one of an older meshflow, which a writer
    gives one.
    """
    known = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'meta'").fetchone()
    row = known and connection.execute("SELECT value FROM meta WHERE name = 'identity'").fetchone()
    return str(row[0]) if row else ""


def commits(connection: sqlite3.Connection) -> dict[int, int]:
    """Committed offset of each partition that has one, by the partition's id."""
    return dict(
        connection.execute("SELECT id, committed_offset FROM partitions WHERE committed_offset IS NOT NULL")
    )


def text(value: bytes) -> str:
    """Text of the file, which damage may have made invalid."""
    return value.decode(errors="replace")


def is_sound(row: tuple[Any, ...]) -> bool:
    """Whether a row of ``records`` can be what a writer wrote; damage may leave any value of any type."""
    _, time_ns, size, codec, headers, payload = row
    if not (isinstance(time_ns, int) and time_ns >= 0 and isinstance(size, int) and 0 <= size <= _MOST_BYTES):
        return False
    if not (isinstance(codec, str) and codec in CODECS and isinstance(payload, bytes)):
        return False
    try:
        return headers is None or all(
            isinstance(name, str) and isinstance(value, int | str)
            for name, value in orjson.loads(headers).items()
        )
    except (ValueError, TypeError, AttributeError):
        return False


def next_readable(connection: sqlite3.Connection, sql: str, bad: int, beyond: int) -> int | None:
    """The first position after ``bad``, which cannot be read, from which on the query gives a row; None where
    there is none. The query's parameter is where to begin, its last words are ORDER BY of its first column.
    """

    def row_at(begin: int, order: str = "") -> int | None:
        try:
            row = connection.execute(f"{sql} {order} LIMIT 1", (begin,)).fetchone()
        except (sqlite3.DatabaseError, MemoryError, OverflowError):
            return None
        return row[0] if row and isinstance(row[0], int) and begin <= row[0] < beyond else None

    step = 1
    while bad + step < beyond and row_at(bad + step) is None:
        step *= 2
    below, good = bad + step // 2, bad + step
    if good >= beyond:  # the steps may have passed over the last ones
        below, last = bad, row_at(bad + 1, "DESC")
        if last is None:
            return None
        good = last
    while good - below > 1:
        middle = (below + good) // 2
        if row_at(middle) is None:
            below = middle
        else:
            good = middle
    return row_at(good)


def note_damage(path: Path) -> None:
    """Have the next start of a writer save what can be read; where this process may not make files, nothing
    happens.
    """
    with suppress(OSError):
        marker(path).touch()


def marker(path: Path) -> Path:
    """The file that says that the log is damaged, for the next start."""
    return path / _MARKER


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite found the file not to be what SQLite writes."""
    return str(getattr(error, "sqlite_errorname", "")).startswith(_DAMAGE)


def add_partitions(connection: sqlite3.Connection, topics: Mapping[str, int]) -> None:
    """Make sure that each topic has at least this many partitions."""
    connection.execute("BEGIN IMMEDIATE")
    for topic, count in topics.items():
        for partition in range(count):
            connection.execute(
                "INSERT OR IGNORE INTO partitions (topic, partition) VALUES (?, ?)", (topic, partition)
            )
    connection.execute("COMMIT")


def partition_ids(connection: sqlite3.Connection) -> dict[TopicPartition, int]:
    """Every partition of the file and its id."""
    rows = connection.execute("SELECT topic, partition, id FROM partitions ORDER BY topic, partition")
    return {TopicPartition(topic, partition): partition_id for topic, partition, partition_id in rows}


def beginning(connection: sqlite3.Connection, partition_id: int) -> int:
    """First offset that is still there, 0 when there was never a record."""
    row = connection.execute(
        "SELECT position FROM records WHERE position >= ? AND position < ? ORDER BY position LIMIT 1",
        (position(partition_id, 0), position(partition_id + 1, 0)),
    ).fetchone()
    return offset_of(row[0]) if row else 0


def newest(connection: sqlite3.Connection, partition_id: int) -> tuple[int, int]:
    """Offset after the newest record, and that record's append time in ns; (0, 0) when there was never a
    record.
    """
    row = connection.execute(
        "SELECT position, append_time_ns FROM records WHERE position >= ? AND position < ? ORDER BY position DESC LIMIT 1",
        (position(partition_id, 0), position(partition_id + 1, 0)),
    ).fetchone()
    return (offset_of(row[0]) + 1, row[1]) if row else (0, 0)


def lock(path: Path) -> int:
    """Become the only writer; the file descriptor holds the lock until it is closed or the process ends.

    Raises LogInUse when another writer has it, and names it; LogUnavailable.
    """
    file = path / LOCK
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise LogUnavailable(f"the log at {path} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 20).decode(errors="replace").strip()
        os.close(descriptor)
        raise LogInUse(
            f"the log at {path} is in use by another meshflow (process {holder or 'unknown'})"
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def unavailable(file: Path, error: sqlite3.Error) -> LogUnavailable:
    """What a SQLite error means to whoever appends or reads."""
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_FULL" or (name.startswith("SQLITE_IOERR") and not _has_room(file)):
        return LogDiskFull(
            f"the disk of the log is full ({file}): nothing more is accepted until there is room"
        )
    if is_damage(error):
        return LogDamaged(
            f"{file} is damaged ({error}): start meshflow again, or say `meshflow repair`; what can be read is saved then"
        )
    return LogUnavailable(f"the log {file} does not work: {error}")


def _has_room(file: Path) -> bool:
    """Whether the disk could take a page: SQLite reports some writes that found none as I/O errors."""
    try:
        status = os.statvfs(file.parent)
    except OSError:
        return True
    return status.f_bavail * status.f_frsize > _WAL_BYTES // 4


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
