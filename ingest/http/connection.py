"""A connection to the HTTP port: what aiohttp makes of it, without its content in the log."""

import asyncio
import logging
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from schemas import self_metrics

_LOGGER = logging.getLogger(__name__)

_EVERY_S = 10.0  # whoever sends noise cannot fill the log


_FOREIGN = {
    b"PRI * HTTP/2.0": "gRPC (HTTP/2) on the port of OTLP/HTTP; send OTLP/gRPC to the port of ingest.grpc_port",
    b"\x16\x03": "TLS, which this port does not have (ingest.tls)",
}
"""How a connection begins that speaks something else, and what to log of it."""


class Faults:
    """Counts malformed requests, and logs now and then that there were some: of which kind, never what was in
    them (a header line may hold a token).
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._logged_s: dict[str, float] = {}

    def add(self, kind: str, now_s: float) -> None:
        """One more."""
        self_metrics.HTTP_MALFORMED.inc()
        name = kind if kind in _FOREIGN.values() else ""  # each of these has a line of its own
        self._counts[name] = self._counts.get(name, 0) + 1
        if now_s >= self._logged_s.get(name, float("-inf")) + _EVERY_S:
            _LOGGER.warning(
                "%d malformed HTTP requests were answered with 400; the last: %s", self._counts[name], kind
            )
            self._counts[name], self._logged_s[name] = 0, now_s


class Connection(web.RequestHandler):
    """aiohttp's protocol of one connection. A malformed request is answered with 400 and closes it."""

    __slots__ = ("_faults", "_foreign")

    def __init__(self, manager: Any, faults: Faults, **options: Any) -> None:
        super().__init__(manager, **options)
        self._faults = faults
        self._foreign: str | None = None  # "" once it has begun as HTTP/1 does

    def data_received(self, data: bytes) -> None:
        """See asyncio. What is wrong within a body ends the request that waits for it: aiohttp only puts the
        error behind it.
        """
        if self._foreign is None:
            self._foreign = next((kind for begin, kind in _FOREIGN.items() if data.startswith(begin)), "")
        super().data_received(data)
        request = self._current_request
        if request is not None and self._messages and not request.content.is_eof():
            request.content.set_exception(web.RequestPayloadError("the body is not well-formed"))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """See aiohttp: called for what its parser refuses, and for what a handler raises."""
        if status != 400 and not isinstance(exc, (HttpProcessingError, web.RequestPayloadError)):
            return super().handle_error(request, status, exc, message)
        if request.writer.output_size > 0:
            raise ConnectionError("a part of an answer is sent already")
        kind = self._foreign or ("no HTTP" if exc is None else type(exc).__name__)
        self._faults.add(kind, asyncio.get_running_loop().time())
        response = web.Response(status=400, text=f"400: not a well-formed HTTP/1.1 request ({kind})")
        response.force_close()
        return response

    def log_exception(self, *_args: Any, **options: Any) -> None:
        """See aiohttp: a bug. The traceback says where; the message, which may quote the request, stays
        out.
        """
        error = options.get("exc_info")
        if isinstance(error, web.RequestPayloadError):
            return  # the request was answered; aiohttp met the same error as it read the rest
        if isinstance(error, BaseException):
            bare = RuntimeError(f"{type(error).__name__} (its text may quote the request)")
            _LOGGER.error("an HTTP connection failed", exc_info=bare.with_traceback(error.__traceback__))
        else:
            _LOGGER.error("an HTTP connection failed")


class Gate(asyncio.Protocol):
    """Hands a new connection to ``handler``, or closes it where ``server`` has ``limit`` of them."""

    def __init__(self, server: web.Server, handler: Connection, limit: int) -> None:
        self._server = server
        self._handler = handler
        self._limit = limit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        if len(self._server.connections) >= self._limit:
            self_metrics.HTTP_CONNECTIONS_REFUSED.inc()
            transport.close()
            return
        transport.set_protocol(self._handler)
        self._handler.connection_made(transport)
