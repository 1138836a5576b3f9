"""Sends answers in pieces, as fast as they are read; one that is read too slowly is dropped."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Executor

from aiohttp import web

from console.room import Held, Pace, Room
from schemas import self_metrics

_PIECE = 256 << 10
_GZIP_WBITS = 31
_GZIP_LEVEL = 3
"""As ClickHouse's http_zlib_compression_level."""


class Sending:
    """Sends; what is not read yet is held in ``memory``."""

    def __init__(self, memory: Room, pace: Pace, workers: Executor) -> None:
        self._memory = memory
        self._pace = pace
        self._workers = workers

    async def send(
        self, request: web.Request, body: bytes, headers: Mapping[str, str], gzip: bool
    ) -> web.StreamResponse:
        """The response, sent or dropped. Raises QueryFailed where too much is held already."""
        response = web.StreamResponse(headers=headers)
        if gzip:
            response.headers["Content-Encoding"] = "gzip"
        else:
            response.content_length = len(body)
        try:
            with Held(self._memory) as held:
                held.resize(len(body))
                async with asyncio.timeout(self._pace.allowed_s(len(body))):
                    await response.prepare(request)
                    if request.method != "HEAD":
                        async for piece in self._packed(body) if gzip else _pieces(body):
                            await response.write(piece)
                    await response.write_eof()
        except TimeoutError:
            self_metrics.SQL_UNREAD.inc()
            if request.transport:
                request.transport.abort()
        except ConnectionError:  # the client is gone
            pass
        return response

    async def _packed(self, body: bytes) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        packing = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_WBITS)
        async for piece in _pieces(body):
            if packed := await loop.run_in_executor(self._workers, packing.compress, piece):
                yield packed
        yield packing.flush()


async def _pieces(body: bytes) -> AsyncIterator[memoryview]:
    view = memoryview(body)
    for start in range(0, len(view), _PIECE):
        yield view[start : start + _PIECE]
