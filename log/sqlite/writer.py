"""The embedded log, writing side: schemas.records.LogWriter on one SQLite file (docs/adr/0010).

One thread writes. What waits for it goes into one transaction (group commit), so an fsync is shared by all
who wait; who appended is answered after it.
"""

import asyncio
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import orjson
import pyarrow as pa

from log.sqlite import schema as file_format
from log.sqlite.clock import LogClock
from log.sqlite.opening import End, Ends, open_log
from log.sqlite.retention import Limits, shrink
from schemas.errors import LogDamaged, LogFull, LogUnavailable, LogVanished
from schemas.records import Append

CODEC = "lz4"  # least CPU for compressing, storing, reading and unpacking OTLP together (docs/adr/0010)
_COMPRESS_FROM_BYTES = 256
_TRANSACTION_BYTES = 32 << 20
_RECORD_OVERHEAD_BYTES = 128
_RETENTION_EVERY_S = 1.0
_RETENTION_S = 0.05  # appends wait for it
_codec = pa.Codec(CODEC)
_LOGGER = logging.getLogger(__name__)


@dataclass(slots=True)
class _Request:
    appends: Sequence[Append]
    done: "Future[None]"
    size: int
    silent_ns: int = -1
    """>= 0: a tick of partitions silent for so long, instead of ``appends``."""


class SqliteLogWriter:
    """The one writer of a log folder."""

    def __init__(
        self,
        directory: Path,
        topics: Mapping[str, int],
        limits: Limits,
        *,
        max_pending_bytes: int = 256 << 20,
        clock_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Open or make the log in ``directory``, with at least ``topics[topic]`` partitions each.

        What can be read of a damaged file is saved first. Raises LogUnavailable: another process writes it,
        the folder cannot be written, the file is newer, or there is no room to save it.
        """
        self._file = directory / file_format.FILE
        self._limits = limits
        self._max_pending_bytes = max_pending_bytes
        self._lock = file_format.lock(directory)
        try:
            self._log = open_log(directory, topics)
        except BaseException:
            os.close(self._lock)
            raise
        self._connection, self._ids, self._ends = self._log.connection, self._log.ids, self._log.ends
        self._seen: Ends = {}
        self._told = ""
        self._clock = LogClock(
            max((end.append_time_ns for end in self._ends.values()), default=0), clock_ns, monotonic_ns
        )
        self._pending_bytes = 0
        self._pending_guard = threading.Lock()
        self._closed = False
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sqlite-log", daemon=True)
        self._thread.start()

    async def append(self, appends: Sequence[Append]) -> None:
        """See schemas.records.LogWriter.append: all of ``appends`` are durable, or none is."""
        for append in appends:
            if append.tp not in self._ids:
                raise LogUnavailable(
                    f"the log has no partition {append.tp.partition} of topic {append.tp.topic}"
                )
        if appends:
            await self._submit(appends, sum(len(append.value) + _RECORD_OVERHEAD_BYTES for append in appends))

    async def tick(self, silent_ns: int) -> None:
        """See schemas.records.LogWriter.tick; a partition that never had a record is silent too."""
        await self._submit((), 0, silent_ns)

    async def close(self) -> None:
        """See schemas.records.LogWriter.close."""
        if not self._closed:
            self._closed = True
            self._requests.put(None)
            await asyncio.to_thread(self._thread.join)

    async def _submit(self, appends: Sequence[Append], size: int, silent_ns: int = -1) -> None:
        if self._closed:
            raise LogUnavailable("the log is closed")
        with self._pending_guard:
            if self._pending_bytes and self._pending_bytes + size > self._max_pending_bytes:
                raise LogFull(f"{self._pending_bytes} bytes wait for the log's disk already")
            self._pending_bytes += size
        request = _Request(appends, Future(), size, silent_ns)
        self._requests.put(request)
        await asyncio.wrap_future(request.done)

    def _run(self) -> None:
        retained_at = time.monotonic()
        closing = False
        while not closing:
            requests, closing = self._gather()
            if requests:
                self._write(requests)
            if time.monotonic() - retained_at >= _RETENTION_EVERY_S:
                self._retain()
                self._save_seen()
                retained_at = time.monotonic()
        self._save_seen()
        self._connection.close()
        os.close(self._lock)

    def _gather(self) -> tuple[list[_Request], bool]:
        """All that waits, at most about ``_TRANSACTION_BYTES`` of it; whether the log is to be closed after
        it.
        """
        requests: list[_Request] = []
        size = 0
        try:
            request = self._requests.get(timeout=_RETENTION_EVERY_S)
            while request is not None:
                if request.done.set_running_or_notify_cancel():
                    requests.append(request)
                    size += request.size
                else:
                    self._settled(request)
                if size >= _TRANSACTION_BYTES:
                    return requests, False
                request = self._requests.get_nowait()
        except queue.Empty:
            return requests, False
        return requests, True

    def _settled(self, request: _Request) -> None:
        with self._pending_guard:
            self._pending_bytes -= request.size

    def _write(self, requests: list[_Request]) -> None:
        error: Exception | None = None
        try:
            self._commit(requests)
        except sqlite3.Error as failure:
            error = file_format.unavailable(self._file, failure)
            if isinstance(error, LogDamaged):
                file_format.note_damage(self._file.parent)
        except LogVanished as failure:
            error = failure
        except Exception as failure:  # whoever waits must hear of it, and the thread must live on
            error = LogUnavailable(f"the log {self._file} did not take a record: {failure!r}")
        for request in requests:
            self._settled(request)
            if error is None:
                request.done.set_result(None)
            else:
                request.done.set_exception(error)

    def _commit(self, requests: list[_Request]) -> None:
        now_ns = self._clock.now_ns()
        ends = dict(self._ends)  # ours once the transaction is durable
        rows = [
            self._row(append, now_ns, ends)
            for request in requests
            for append in _appends(request, now_ns, ends)
        ]
        if not rows:
            return
        self._log.check_files()
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", rows)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._log.check_files()  # acknowledged is only what is in files that a next start finds
        self._ends = ends

    def _row(self, append: Append, now_ns: int, ends: Ends) -> tuple[int, int, int, str, bytes | None, bytes]:
        end = ends[append.tp]
        time_ns = max(now_ns, end.append_time_ns)
        ends[append.tp] = End(end.offset + 1, time_ns)
        codec, payload = compress(append.value)
        headers = {**append.headers, **append.labels}
        return (
            file_format.position(self._ids[append.tp], end.offset),
            time_ns,
            len(append.value),
            codec,
            orjson.dumps(headers) if headers else None,
            payload,
        )

    def _retain(self) -> None:
        until = time.monotonic() + _RETENTION_S
        try:
            shrink(
                self._connection,
                list(self._ids.values()),
                self._limits,
                self._clock.now_ns(),
                lambda: time.monotonic() < until,
            )
        except sqlite3.Error:  # the next append meets the same trouble and says so
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _save_seen(self) -> None:
        """Remember how far the log is, where that has changed; failing does no harm now."""
        if self._seen == self._ends:
            return
        try:
            self._log.check_files()
            self._log.save_seen(self._ends)
            self._seen = self._ends
        except (OSError, sqlite3.Error, LogVanished) as error:
            if str(error) != self._told:
                _LOGGER.warning("how far the log is cannot be noted beside it: %s", error)
            self._told = str(error)


def _appends(request: _Request, now_ns: int, ends: Ends) -> Sequence[Append]:
    if request.silent_ns < 0:
        return request.appends
    return [Append(tp, b"") for tp, end in ends.items() if now_ns - end.append_time_ns > request.silent_ns]


def compress(value: bytes) -> tuple[str, bytes]:
    """Codec name ("" when it does not pay) and the bytes to store."""
    if len(value) < _COMPRESS_FROM_BYTES:
        return "", value
    packed: bytes = _codec.compress(value, asbytes=True)
    return (CODEC, packed) if len(packed) < len(value) else ("", value)
