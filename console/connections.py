"""Connections of an HTTP port: bounded in number, and dropped where nobody reads what is sent."""

import asyncio
import logging
import resource
from typing import cast

from aiohttp import web

from schemas import self_metrics

logger = logging.getLogger(__name__)

_MAX_AHEAD = 2 << 20
"""Bytes that a client may send before its request is answered, beside that request."""


def fitted(limit: int) -> int:
    """``limit``, or fewer where they would be more than a quarter of the files that this process may have
    open (``ulimit -n``): receivers, log and store need the others.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = limit if files == resource.RLIM_INFINITY else max(1, files // 4)
    if limit > room:
        logger.warning(
            "this process may have %s files open (ulimit -n): the port of SQL and /metrics takes %s connections,"
            " not the %s of console.max_connections",
            f"{files:,}",
            f"{room:,}",
            f"{limit:,}",
        )
    return min(limit, room)


class Connections:
    """Makes what a new connection meets: ``server``, or its end where there are ``limit`` already.

    One that takes nothing of what is sent for ``timeout_s`` is dropped.
    """

    def __init__(self, server: web.Server, limit: int, timeout_s: float) -> None:
        self.server = server
        self.limit = limit
        self.timeout_s = timeout_s
        self.open: dict[web.RequestHandler, _Connection] = {}

    def __call__(self) -> asyncio.Protocol:
        """For one connection."""
        return _Connection(self)

    def expect(self, request: web.Request, *, body: bool) -> None:
        """A request has begun whose body is still to come, or (not ``body``) has come: what its client sends
        from now on is for later, and bounded.
        """
        if connection := self.open.get(request.protocol):
            connection.expect(body)


class _Connection(asyncio.Protocol):
    """In front of aiohttp's protocol, which closes silent connections but waits for readers for ever."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._handler: web.RequestHandler | None = None
        self._transport: asyncio.Transport | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._ahead: int | None = None

    def expect(self, body: bool) -> None:
        """See :class:`Connections`."""
        self._ahead = None if body else 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        if len(self._connections.open) >= self._connections.limit:
            self_metrics.SQL_CONNECTIONS_REFUSED.inc()
            self._transport.abort()
            return
        self_metrics.SQL_CONNECTIONS.inc()
        self._transport.set_write_buffer_limits(high=0)  # a write ends when the system has all of it
        self._handler = self._connections.server()
        self._connections.open[self._handler] = self
        self._handler.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._ahead is not None:
            self._ahead += len(data)
            if self._ahead > _MAX_AHEAD and self._transport:
                self._transport.abort()
                return
        if self._handler:
            self._handler.data_received(data)

    def eof_received(self) -> None:
        """See asyncio."""
        if self._handler:
            self._handler.eof_received()

    def pause_writing(self) -> None:
        """See asyncio."""
        if self._handler:
            self._unread = asyncio.get_running_loop().call_later(self._connections.timeout_s, self._drop)
            self._handler.pause_writing()

    def resume_writing(self) -> None:
        """See asyncio."""
        if self._unread:
            self._unread.cancel()
        if self._handler:
            self._handler.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        if self._unread:
            self._unread.cancel()
        if self._handler:
            del self._connections.open[self._handler]
            self_metrics.SQL_CONNECTIONS.dec()
            self._handler.connection_lost(exc)
            self._handler = None

    def _drop(self) -> None:
        self_metrics.SQL_UNREAD.inc()
        assert self._transport is not None
        self._transport.abort()
