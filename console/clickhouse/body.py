"""Bodies of requests: a statement in memory, the rows of an INSERT in a file, both unpacked and bounded."""

import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import lz4.frame
from aiohttp import web

from console.clickhouse import interface as clickhouse
from console.clickhouse.compressed import Unpacker
from console.clickhouse.insert import split_insert
from schemas.errors import QueryFailed

CANNOT_DECOMPRESS = 271
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a body may be, unpacked."""

    statement: int
    rows: int


class Body:
    """What a request sent: the statement, and the file of the rows that follow it (removed by
    :meth:`close`).
    """

    def __init__(self, statement: bytes, rows: IO[bytes] | None) -> None:
        self.statement = statement
        self._rows = rows

    @property
    def rows(self) -> Path | None:
        """The file of the rows; None for a statement without."""
        return Path(self._rows.name) if self._rows else None

    def close(self) -> None:
        """Remove the file."""
        if self._rows:
            self._rows.close()


NOTHING = Body(b"", None)
"""Of a request that says nothing."""


async def read_body(request: web.Request, prefix: bytes, sizes: Sizes, folder: Path | None) -> Body:
    """Read the body of a request whose ``query`` parameter is ``prefix``. Without a ``folder`` for rows, all
    of it is the statement.

    Raises QueryFailed: too large, or not packed as its Content-Encoding says.
    """
    head = bytearray(prefix + b"\n" if prefix else b"")
    chunks = _unpacked(request)
    more = True
    while more and len(head) <= sizes.statement:
        chunk = await anext(chunks, None)
        more = chunk is not None
        head += chunk or b""
    cut = split_insert(bytes(head[: sizes.statement]))
    if cut is None or folder is None:
        if len(head) > sizes.statement:
            raise too_large(f"the statement is larger than {sizes.statement} bytes")
        return Body(bytes(head), None)
    rows = tempfile.NamedTemporaryFile(dir=folder, suffix=".rows")  # noqa: SIM115 - the caller closes it with the body
    try:
        part: bytes | None = bytes(head[cut:])
        while part is not None:
            if rows.tell() + len(part) > sizes.rows:
                raise too_large(
                    f"the rows of the INSERT are larger than {sizes.rows} bytes (console.max_insert_size); send fewer at a time"
                )
            rows.write(part)
            part = await anext(chunks, None) if more else None
        rows.flush()
    except BaseException:
        rows.close()
        raise
    return Body(bytes(head[:cut]), rows)


def too_large(reason: str) -> QueryFailed:
    """ClickHouse's QUERY_IS_TOO_LARGE."""
    return clickhouse.failed(clickhouse.QUERY_IS_TOO_LARGE, "QUERY_IS_TOO_LARGE", reason)


async def _unpacked(request: web.Request) -> AsyncIterator[bytes]:
    """Chunks of at most 1 MiB or so; aiohttp unpacks gzip, deflate, zstd and br by itself."""
    encoding = request.headers.get("Content-Encoding", "").lower()
    try:
        if request.query.get("decompress") == "1":
            encoding = "ClickHouse's blocks"
            async for chunk in _blocks(request):
                yield chunk
        elif encoding == "lz4":
            async for chunk in _lz4_frames(request):
                yield chunk
        elif encoding in {"", "identity", "gzip", "deflate", "zstd", "br"}:
            async for chunk in request.content.iter_any():
                yield chunk
        else:
            raise clickhouse.failed(
                clickhouse.UNSUPPORTED,
                "NOT_IMPLEMENTED",
                f"Content-Encoding {encoding} is not known; use zstd, lz4 or gzip",
            )
    except (
        RuntimeError,
        ValueError,
        web.RequestPayloadError,
    ) as error:  # lz4's; console.clickhouse.compressed'; aiohttp's
        raise clickhouse.failed(
            CANNOT_DECOMPRESS, "CANNOT_DECOMPRESS", f"the body is not whole, or not {encoding}: {error}"
        ) from error


async def _blocks(request: web.Request) -> AsyncIterator[bytes]:
    unpacker = Unpacker()
    async for packed in request.content.iter_any():
        for chunk in unpacker.feed(packed):
            yield chunk
    unpacker.finish()


async def _lz4_frames(request: web.Request) -> AsyncIterator[bytes]:
    unpacking = lz4.frame.LZ4FrameDecompressor()
    whole = True
    async for packed in request.content.iter_any():
        rest, whole = packed, False
        while rest or not unpacking.needs_input:
            yield unpacking.decompress(rest, _CHUNK)
            rest = b""
            if unpacking.eof:
                rest = unpacking.unused_data or b""
                unpacking.reset()
                whole = not rest
    if not whole:
        raise RuntimeError("the last lz4 frame ends early")
