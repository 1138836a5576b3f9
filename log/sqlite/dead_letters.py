"""Dead letters of the embedded mode: one SQLite file beside the log (docs/adr/0037).

The process that processes writes, any process reads and marks. A letter is known by the record's topic,
partition, offset and append time (a new log counts offsets from 0 again) and by its reason.
"""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import orjson

from log.sqlite import schema as file_format
from schemas.dead_letters import (
    LEFT_OUT,
    REASONS,
    WHOLE,
    Found,
    LetterId,
    Selection,
    StoredLetter,
    payload_of,
)
from schemas.errors import LogDamaged, LogUnavailable
from schemas.records import DeadLetter, Record, TopicPartition

FILE = "dead_letters.sqlite"
MAX_LETTERS = 100_000
"""Letters that are kept apart; of older ones only the number stays."""

_MAX_REASON_BYTES = 4 << 10
_BATCH = 100
_RETRY_S = 1.0
_LOGGER = logging.getLogger(__name__)
_T = TypeVar("_T")

_TABLES = """
CREATE TABLE IF NOT EXISTS letters (
    number INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    append_time_ns INTEGER NOT NULL,
    reason TEXT NOT NULL,
    size INTEGER NOT NULL,
    extent TEXT NOT NULL,
    key BLOB NOT NULL,
    labels TEXT NOT NULL,
    replayed TEXT NOT NULL DEFAULT '',
    asked INTEGER NOT NULL DEFAULT 0,
    codec TEXT NOT NULL,
    payload BLOB NOT NULL,
    UNIQUE (topic, partition, offset, append_time_ns, reason)
);
CREATE INDEX IF NOT EXISTS with_payload ON letters (number) WHERE extent <> 'left out';
CREATE INDEX IF NOT EXISTS asked ON letters (number) WHERE asked = 1;
CREATE TABLE IF NOT EXISTS forgotten (
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    append_time_ns INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    letters INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
"""

_INSERT = """
INSERT OR IGNORE INTO letters (topic, partition, offset, append_time_ns, reason, size, extent, key, labels, codec, payload)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11
WHERE NOT EXISTS (SELECT 1 FROM forgotten WHERE topic = ?1 AND partition = ?2 AND (append_time_ns, offset) >= (?4, ?3))
"""

_FORGET = """
INSERT INTO forgotten SELECT topic, partition, append_time_ns, offset, 1 FROM letters WHERE number = ?
ON CONFLICT DO UPDATE SET letters = forgotten.letters + 1,
    append_time_ns = max(forgotten.append_time_ns, excluded.append_time_ns),
    offset = iif(excluded.append_time_ns > forgotten.append_time_ns, excluded.offset, max(excluded.offset, forgotten.offset))
"""


class SqliteDeadLetters:
    """schemas.dead_letters.DeadLetterWriter and DeadLetterReader of a log folder."""

    def __init__(self, directory: Path, max_bytes: int = 1 << 40, max_letters: int = MAX_LETTERS) -> None:
        """``max_bytes`` of payloads: over it the oldest ones go, and their letters stay. Raises
        LogUnavailable.
        """
        self._file = directory / FILE
        self._max_bytes = max_bytes
        self._max_letters = max_letters
        self._stopping = threading.Event()
        self._connection = connect(self._file)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-dead-letters")

    async def write(self, tp: TopicPartition, letters: Sequence[DeadLetter]) -> None:
        """See schemas.dead_letters.DeadLetterWriter.write; while the disk is full, wait.

        Raises LogUnavailable once :meth:`stop` was called, LogDamaged.
        """
        while True:
            try:
                return await self._call(lambda: self._write(tp, letters))
            except LogDamaged:
                raise  # waiting does not mend it, the next start does
            except LogUnavailable as error:
                if self._stopping.is_set():
                    raise
                _LOGGER.warning("dead letters wait: %s", error)
                await asyncio.to_thread(self._stopping.wait, _RETRY_S)

    def stop(self) -> None:
        """End waiting: a write that fails from now on raises."""
        self._stopping.set()

    async def find(self, selection: Selection, *, payloads: bool = False) -> Found:
        """See schemas.dead_letters.DeadLetterReader.find."""
        return await self._call(lambda: self._find(selection, payloads))

    async def mark_replayed(self, letters: Sequence[StoredLetter], note: str) -> None:
        """See schemas.dead_letters.DeadLetterReader.mark_replayed."""
        await self._call(lambda: self._mark("replayed = ?, asked = 0", note, letters))

    async def ask(self, letters: Sequence[StoredLetter]) -> None:
        """Have the process that writes the log replay these letters (:meth:`asked`)."""
        await self._call(lambda: self._mark("asked = ?", 1, letters))

    async def unask(self, letter: StoredLetter) -> None:
        """Replay it no longer."""
        await self._call(lambda: self._mark("asked = ?", 0, [letter]))

    async def asked(self, limit: int = _BATCH, *, payloads: bool = True) -> list[StoredLetter]:
        """The oldest letters that are to be replayed. Raises LogUnavailable."""
        return await self._call(lambda: self._asked(limit, payloads))

    async def close(self) -> None:
        """See schemas.dead_letters.DeadLetterWriter.close."""
        self._stopping.set()
        await asyncio.to_thread(self._thread.shutdown)
        self._connection.close()

    async def _call(self, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise file_format.unavailable(self._file, error) from error

    def _write(self, tp: TopicPartition, letters: Sequence[DeadLetter]) -> None:
        with _transaction(self._connection):
            for letter in letters:
                self._connection.execute(_INSERT, self._row(tp, letter))
            self._shrink()

    def _row(self, tp: TopicPartition, letter: DeadLetter) -> tuple[Any, ...]:
        record = letter.record
        extent, codec, payload = WHOLE, record.codec, record.payload
        if (record.size and not payload) or len(payload) > self._max_bytes:
            extent, codec, payload = LEFT_OUT, "", b""
        return (
            *tp,
            record.offset,
            record.append_time_ns,
            letter.reason.encode(errors="replace")[:_MAX_REASON_BYTES].decode(errors="ignore"),
            record.size,
            extent,
            record.key[:_MAX_REASON_BYTES],
            orjson.dumps(dict(record.labels)).decode(),
            codec,
            payload,
        )

    def _shrink(self) -> None:
        """Let the oldest payloads go over the limit of bytes, the oldest letters over their number."""
        run = self._connection.execute
        held = run("SELECT total(length(payload)) FROM letters WHERE extent <> 'left out'").fetchone()[0]
        while held > self._max_bytes:
            number, size = run(
                "SELECT number, length(payload) FROM letters WHERE extent <> 'left out' ORDER BY number LIMIT 1"
            ).fetchone()
            run(
                "UPDATE letters SET payload = x'', codec = '', extent = ? WHERE number = ?",
                (LEFT_OUT, number),
            )
            held -= size
        surplus = run("SELECT count(*) FROM letters").fetchone()[0] - self._max_letters
        for (number,) in run(
            "SELECT number FROM letters ORDER BY number LIMIT ?", (max(0, surplus),)
        ).fetchall():
            run(_FORGET, (number,))
            run("DELETE FROM letters WHERE number = ?", (number,))

    def _find(self, selection: Selection, payloads: bool) -> Found:
        run = self._connection.execute
        where, values = _where(selection)
        columns = f"{_COLUMNS}, codec, payload" if payloads else f"{_COLUMNS}, '', x''"
        rows = run(
            f"SELECT {columns} FROM letters WHERE {where} ORDER BY append_time_ns DESC, number DESC LIMIT ?",
            (*values, selection.limit),
        ).fetchall()
        reasons = run(
            f"SELECT reason, count(*) FROM letters WHERE {where} GROUP BY reason ORDER BY 2 DESC, 1 LIMIT {REASONS}",
            values,
        ).fetchall()
        (total,) = run(f"SELECT count(*) FROM letters WHERE {where}", values).fetchone()
        (forgotten,) = run("SELECT total(letters) FROM forgotten").fetchone()
        return Found([_letter(row) for row in reversed(rows)], total, reasons, int(forgotten))

    def _asked(self, limit: int, payloads: bool) -> list[StoredLetter]:
        columns = f"{_COLUMNS}, codec, payload" if payloads else f"{_COLUMNS}, '', x''"
        sql = f"SELECT {columns} FROM letters WHERE asked = 1 ORDER BY number LIMIT ?"
        return [_letter(row) for row in self._connection.execute(sql, (limit,))]

    def _mark(self, change: str, value: "str | int", letters: Sequence[StoredLetter]) -> None:
        with _transaction(self._connection):
            self._connection.executemany(
                f"UPDATE letters SET {change} WHERE topic = ? AND partition = ? AND offset = ? AND append_time_ns = ?",
                [(value, *letter.id, letter.append_time_ns) for letter in letters],
            )


_COLUMNS = "topic, partition, offset, append_time_ns, size, reason, extent, key, labels, replayed"


def _letter(row: tuple[Any, ...]) -> StoredLetter:
    topic, partition, offset, time_ns, size, reason, extent, key, labels, replayed, codec, packed = row
    payload = payload_of(Record(offset, time_ns, packed, size, codec))[0] if packed else b""
    return StoredLetter(
        LetterId(topic, partition, offset),
        time_ns,
        size,
        reason,
        extent,
        payload,
        key,
        _labels(labels),
        replayed,
    )


def _labels(text: str) -> dict[str, str]:
    """Headers of a letter; none where damage left no JSON of them."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return {name: str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _where(selection: Selection) -> tuple[str, tuple[Any, ...]]:
    parts: list[str] = ["1"]
    values: list[Any] = []
    if selection.topic:
        parts.append("topic = ?")
        values.append(selection.topic)
    if selection.partition is not None:
        parts.append("partition = ?")
        values.append(selection.partition)
    if selection.reason:
        parts.append("instr(reason, ?) > 0")
        values.append(selection.reason)
    if selection.replayed is not None:
        parts.append("replayed <> ''" if selection.replayed else "replayed = ''")
    if selection.ids is not None:
        parts.append(
            f"(topic, partition, offset) IN (VALUES {', '.join(['(?, ?, ?)'] * len(selection.ids))})"
        )
        values += [value for id_ in sorted(selection.ids) for value in id_]
    return " AND ".join(parts), tuple(values)


class _transaction:  # noqa: N801 - used as contextlib's are
    """A write transaction, undone on an error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            if error is None:
                self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def connect(file: Path) -> sqlite3.Connection:
    """A connection to a file of dead letters, which is made where it is not there. Raises LogUnavailable;
    LogDamaged: log.sqlite.letters_salvage saves what can be read.
    """
    try:
        connection = sqlite3.connect(file, timeout=30, isolation_level=None, check_same_thread=False)
        connection.text_factory = file_format.text
        connection.execute("PRAGMA auto_vacuum = FULL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA temp_store = MEMORY")  # the process that writes may make no files
        connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")
    except sqlite3.Error as error:
        raise file_format.unavailable(file, error) from error
    return connection
