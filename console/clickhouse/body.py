"""Bodies of requests: a statement in memory, the rows of an INSERT in a file, both unpacked and bounded in
bytes and in time.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from console.clickhouse import interface as clickhouse
from console.clickhouse.compressed import LARGEST
from console.clickhouse.insert import split_insert
from console.clickhouse.packed import ERRORS, unpacking_of
from console.room import Held, Pace, Room
from schemas.errors import QueryFailed

CANNOT_DECOMPRESS = 271
_SLACK = 64 << 10
"""By how much a packed body may be larger than it is unpacked."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large and slow bodies may be."""

    statement: int
    """Bytes of one, unpacked."""
    rows: int
    """Bytes of the rows of one INSERT, unpacked."""
    pace: Pace
    memory: Room
    """For the statements of all, and what waits to be unpacked."""
    disk: Room
    """For the rows of all."""
    workers: Executor
    """Unpack, off the loop."""


class Body:
    """What a request sent: the statement, and the file of the rows that follow it (removed by
    :meth:`close`).
    """

    def __init__(self, statement: bytes, rows: "Rows | None") -> None:
        self.statement = statement
        self._rows = rows

    @property
    def rows(self) -> Path | None:
        """The file of the rows; None for a statement without."""
        return self._rows.path if self._rows else None

    def close(self) -> None:
        """Remove the file."""
        if self._rows:
            self._rows.close()


class Rows:
    """A file of rows in ``folder``, at most ``limit`` bytes."""

    def __init__(self, folder: Path, limit: int, disk: Room) -> None:
        self._limit = limit
        self._size = 0
        self._held = Held(disk)
        self._file = tempfile.NamedTemporaryFile(dir=folder, suffix=".rows")  # noqa: SIM115 - see close
        self.path = Path(self._file.name)

    async def add(self, part: bytes, workers: Executor) -> None:
        """Write more of them. Raises QueryFailed: too many."""
        self._size += len(part)
        if self._size > self._limit:
            raise too_large(
                f"the rows of the INSERT are larger than {self._limit} bytes (console.max_insert_size); send fewer at a time"
            )
        self._held.resize(self._size)
        await in_thread(workers, self._file.write, part)

    def flush(self) -> None:
        """Let others read all of them."""
        self._file.flush()

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
        self._held.close()


async def read_body(request: web.Request, prefix: bytes, bounds: Bounds, folder: Path | None) -> Body:
    """Read the body of a request whose ``query`` parameter is ``prefix``. Without a ``folder`` for rows, all
    of it is the statement.

    Raises QueryFailed: too large, too slow, or not packed as its Content-Encoding says.
    """
    head = bytearray(prefix + b"\n" if prefix else b"")
    with Held(bounds.memory) as held:
        chunks = _unpacked(request, bounds, rows=folder is not None)
        more = True
        while more and len(head) <= bounds.statement:
            chunk = await anext(chunks, None)
            more = chunk is not None
            head += chunk or b""
            held.resize(len(head))
        cut = (
            await in_thread(bounds.workers, split_insert, bytes(head[: bounds.statement])) if folder else None
        )
        if cut is None or folder is None:
            if len(head) > bounds.statement:
                raise too_large(
                    f"the statement is larger than {bounds.statement} bytes (console.max_request_size)"
                )
            return Body(bytes(head), None)
        rows = Rows(folder, bounds.rows, bounds.disk)
        try:
            await rows.add(bytes(head[cut:]), bounds.workers)
            del head[cut:]
            while more and (chunk := await anext(chunks, None)) is not None:
                await rows.add(chunk, bounds.workers)
            rows.flush()
        except BaseException:
            rows.close()
            raise
        return Body(bytes(head), rows)


def too_large(reason: str) -> QueryFailed:
    """ClickHouse's QUERY_IS_TOO_LARGE."""
    return clickhouse.failed(clickhouse.QUERY_IS_TOO_LARGE, "QUERY_IS_TOO_LARGE", reason)


def too_slow(pace: Pace) -> QueryFailed:
    """ClickHouse's TIMEOUT_EXCEEDED, for a body."""
    return clickhouse.failed(
        clickhouse.TIMEOUT_EXCEEDED,
        "TIMEOUT_EXCEEDED",
        f"the body has no end after {pace.timeout_s:g} s and its time by console.min_rate (console.client_timeout)",
    )


async def _unpacked(request: web.Request, bounds: Bounds, *, rows: bool) -> AsyncIterator[bytes]:
    """Pieces of at most 1 MiB, or one of ClickHouse's blocks each; of a body that may have ``rows``."""
    limit = bounds.statement + (bounds.rows if rows else 0)
    setting = "console.max_insert_size" if rows else "console.max_request_size"
    compressed = request.query.get("decompress") == "1"
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    try:
        unpacking = unpacking_of(encoding, compressed, min(limit, LARGEST))
    except KeyError:
        reason = f"Content-Encoding {encoding[:50]!r} is not known; use zstd, lz4 or gzip"
        raise clickhouse.failed(clickhouse.UNSUPPORTED, "NOT_IMPLEMENTED", reason) from None
    packed = received(request, bounds.pace, limit + _SLACK, setting)
    if unpacking is None:
        async for chunk in packed:
            yield chunk
        return
    try:
        with Held(bounds.memory) as held:
            async for chunk in packed:
                pieces = unpacking.feed(chunk)
                while (piece := await in_thread(bounds.workers, next, pieces, None)) is not None:
                    yield piece
                held.resize(unpacking.held_bytes)
        unpacking.finish()
    except ERRORS as error:
        kind = "ClickHouse's compressed blocks" if compressed else encoding
        reason = f"the body is not whole, or not {kind}: {error}"
        raise clickhouse.failed(CANNOT_DECOMPRESS, "CANNOT_DECOMPRESS", reason) from error


async def received(
    request: web.Request, pace: Pace, limit: int, setting: str = "console.max_request_size"
) -> AsyncIterator[bytes]:
    """A body as it comes in, at most ``limit`` bytes, which come from ``setting``."""
    if (request.content_length or 0) > limit:
        raise too_large(f"the body is larger than {limit} bytes ({setting})")
    loop = asyncio.get_running_loop()
    began_s, size = loop.time(), 0
    while True:
        try:
            async with asyncio.timeout_at(began_s + pace.allowed_s(size)):
                chunk = await request.content.readany()
        except TimeoutError:
            raise too_slow(pace) from None
        except web.RequestPayloadError as error:
            raise clickhouse.failed(
                clickhouse.BAD_ARGUMENTS, "BAD_ARGUMENTS", "the body is not what HTTP allows"
            ) from error
        if not chunk:
            return
        size += len(chunk)
        if size > limit:
            raise too_large(f"the body is larger than {limit} bytes ({setting})")
        yield chunk


async def in_thread(workers: Executor, work: Callable[..., _T], *arguments: Any) -> _T:
    """Its result, without holding the loop up."""
    return await asyncio.get_running_loop().run_in_executor(workers, work, *arguments)
