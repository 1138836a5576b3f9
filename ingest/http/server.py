"""OTLP/HTTP: POST /v1/traces, /v1/metrics and /v1/logs, protobuf or JSON, gzip or plain; GET /health.

OTLP specification, "OTLP/HTTP": 200 with the Export response, errors with ``google.rpc.Status``, both encoded
as the request was; 429 and 503 with Retry-After may be repeated, 400, 413 and 415 must not.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import ClientError, HttpVersion10, HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError
from google.rpc import code_pb2

from ingest.admission import (
    UNAUTHENTICATED,
    Accepted,
    ReceivingTooMuch,
    Refusal,
    RequestTooLarge,
    RequestTooSlow,
    UnsupportedMedia,
    refusal_of,
)
from ingest.http.connection import Connection, Faults, Gate
from ingest.http.cors import Cors
from ingest.http.elsewhere import not_found
from ingest.http.encoding import PROTOBUF, Encoding, encoding_of
from ingest.receive import Receiver
from ingest.security import Credentials, TlsIdentity, authorize
from ingest.settings import IngestSettings
from schemas import self_metrics, topics
from schemas.errors import AddressInUse, MalformedOtlp

PATHS = {"/v1/traces": topics.SPANS, "/v1/metrics": topics.METRICS, "/v1/logs": topics.LOGS}

_VERSIONS = (HttpVersion10, HttpVersion11)

_BACKLOG = 1024  # connections that wait to be accepted: a mesh comes back all at once

_CHUNK_BYTES = 64  # what a piece of a body costs besides its bytes


class _Receiving:
    """Bytes of bodies that have not come to their end, of all requests: at most ``limit``."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def take(self, size: int) -> None:
        """Hold ``size`` more. Raises ReceivingTooMuch."""
        if self.held + size > self._limit:
            raise ReceivingTooMuch("too much is being received at once (max_receiving)")
        self.held += size

    def give(self, size: int) -> None:
        """Give back what was taken."""
        self.held -= size


async def _body(request: web.Request, limit: int, timeout_s: float, receiving: _Receiving) -> bytes:
    """The body as sent. Raises RequestTooLarge, at once where the request says its length, RequestTooSlow,
    ReceivingTooMuch, and MalformedOtlp where its chunks are not well-formed or its sender went away.
    """
    if (request.content_length or 0) > limit:
        raise RequestTooLarge(f"the request has {request.content_length:,} bytes, more than {limit:,}")
    chunks: list[bytes] = []
    size = held = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.content.iter_any():
                size += len(chunk)
                if size > limit:
                    raise RequestTooLarge(f"the request has more than {limit:,} bytes")
                receiving.take(len(chunk) + _CHUNK_BYTES)
                held += len(chunk) + _CHUNK_BYTES
                chunks.append(chunk)
    except TimeoutError:
        raise RequestTooSlow(f"{size:,} bytes of the body came in {timeout_s:g} s, and not its end") from None
    except (web.RequestPayloadError, HttpProcessingError, ClientError, ConnectionError) as error:
        raise MalformedOtlp(
            f"the body is not well-formed ({type(error.__cause__ or error).__name__})"
        ) from None
    finally:
        receiving.give(held)
    return b"".join(chunks)


class HttpServer:
    """The HTTP receiver on ``settings.host``; ``port`` is the one it got."""

    def __init__(
        self, receiver: Receiver, settings: IngestSettings, credentials: Credentials, reuse_port: bool = False
    ) -> None:
        self._receiver = receiver
        self._settings = settings
        self._reuse_port = reuse_port
        self._credentials = credentials
        self._receiving = _Receiving(settings.max_receiving)
        self._faults = Faults()
        self._cors = Cors(settings.cors.origins, settings.cors.headers)
        self._runner: web.AppRunner | None = None
        self._listening: list[asyncio.Server] = []
        self._stopping = False
        self.port = 0

    @property
    def receiving_bytes(self) -> int:
        """Bytes held for bodies that have not come to their end."""
        return self._receiving.held

    async def start(self) -> None:
        """Listen. Raises AddressInUse."""
        app = web.Application()
        app.router.add_get("/health", self._health)
        for path, topic in PATHS.items():
            app.router.add_post(path, self._export(topic), expect_handler=self._expect)
            if self._settings.cors.origins:
                app.router.add_options(path, self._preflight)
        app.router.add_route("*", "/{path:.*}", self._elsewhere)
        if self._settings.cors.origins:
            app.on_response_prepare.append(self._allow)
        settings = self._settings
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            shutdown_timeout=settings.drain_time.total_seconds() + 1,
        )
        await self._runner.setup()
        try:
            where = {
                "host": settings.host,
                "port": settings.http_port,
                "reuse_port": self._reuse_port or None,
            }
            self._listening = [await self._listen(self._credentials.tls, **where)]
        except OSError as error:
            await self._runner.cleanup()
            raise AddressInUse(
                f"OTLP/HTTP cannot listen on {settings.host}:{settings.http_port}: {error}"
            ) from error
        self.port = self._listening[0].sockets[0].getsockname()[1]

    async def replace(self, credentials: Credentials) -> None:
        """Tokens hold at once, certificates for new connections: the same sockets are listened on with a new
        context.

        OpenSSL would resume sessions that were made with the old one, without asking for a certificate again.
        """
        if credentials.tls != self._credentials.tls:
            sockets = [socket.dup() for server in self._listening for socket in server.sockets]
            before, self._listening = (
                self._listening,
                [await self._listen(credentials.tls, sock=socket) for socket in sockets],
            )
            for server in before:
                server.close()
        self._credentials = credentials

    async def stop(self) -> None:
        """Take no new requests, finish those that have begun; cut them off some time after
        ``settings.drain_time``.
        """
        self._stopping = True
        for server in self._listening:
            server.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _listen(self, tls: TlsIdentity | None, **where: Any) -> asyncio.Server:
        handshake_s = self._settings.keepalive_timeout.total_seconds() if tls else None
        return await asyncio.get_running_loop().create_server(
            self._protocol,
            ssl=tls.context if tls else None,
            ssl_handshake_timeout=handshake_s,
            backlog=_BACKLOG,
            **where,
        )

    def _protocol(self) -> asyncio.Protocol:
        """What a new connection meets."""
        assert self._runner is not None
        assert self._runner.server is not None
        server, settings = self._runner.server, self._settings
        connection = Connection(
            server,
            self._faults,
            loop=asyncio.get_running_loop(),
            access_log=None,
            lingering_time=1,  # of a refused body: as long as a sender needs to see the answer
            auto_decompress=False,  # unpacked here, with a limit and an answer that says what is wrong
            keepalive_timeout=settings.keepalive_timeout.total_seconds(),
        )
        return Gate(server, connection, settings.max_http_connections)

    async def _health(self, _request: web.Request) -> web.Response:
        if self._stopping:
            return web.json_response({"status": "NOT_SERVING"}, status=503)
        return web.json_response({"status": "SERVING"})

    async def _preflight(self, request: web.Request) -> web.Response:
        """A browser asks whether a page may send."""
        allowed = self._cors.preflight(request.headers)
        if allowed is None:
            return web.Response(
                status=403, text="pages of this origin may not send here (ingest.cors.origins)"
            )
        return web.Response(status=204, headers=allowed)

    async def _allow(self, request: web.Request, response: web.StreamResponse) -> None:
        """Have a page read the answer."""
        response.headers.update(self._cors.answer(request.headers.get("Origin")))

    async def _elsewhere(self, request: web.Request) -> web.Response:
        """Nothing is here, or not by this method."""
        allowed = "GET, HEAD" if request.path == "/health" else "POST" if request.path in PATHS else ""
        if allowed:
            return web.Response(
                status=405, text=f"405: {request.path} takes {allowed}", headers={"Allow": allowed}
            )
        return web.Response(status=404, text=f"404: {not_found(request.path)}")

    async def _expect(self, request: web.Request) -> None:
        """Ask for the body (100 Continue) only where it will be read."""
        if request.headers.get("Expect", "").lower() == "100-continue" and self._refused(request) is None:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # so that aiohttp does not take the answer's headers for written

    def _refused(self, request: web.Request) -> str | None:
        shown = request.headers.get("Authorization")
        return authorize(
            None if shown is None else shown.encode(errors="surrogateescape"), self._credentials.tokens
        )

    def _export(self, topic: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        timeout_s = self._settings.body_timeout.total_seconds()
        retry_after_s = self._settings.retry_after.total_seconds()

        async def export(request: web.Request) -> web.Response:
            if request.version not in _VERSIONS:
                raise web.HTTPBadRequest(text="400: this port speaks HTTP/1.0 and HTTP/1.1")
            encoding = Encoding(
                json=request.content_type != PROTOBUF, packed="", limit=0
            )  # for the answer, until all of it is known
            if reason := self._refused(request):
                self_metrics.UNAUTHENTICATED.labels("http", reason).inc()
                return _count(topic, UNAUTHENTICATED[reason], encoding)
            try:
                encoding = encoding_of(
                    request.content_type, request.headers.get("Content-Encoding", "").lower(), self._settings
                )
                body = await _body(request, encoding.limit, timeout_s, self._receiving)
            except (
                MalformedOtlp,
                UnsupportedMedia,
                RequestTooLarge,
                RequestTooSlow,
                ReceivingTooMuch,
            ) as error:
                if isinstance(error, ReceivingTooMuch):
                    self_metrics.UNREAD.labels("http", topic).inc()
                return _count(topic, refusal_of(error, retry_after_s), encoding)
            return _count(topic, await self._receiver.receive(topic, body, encoding.unpack(topic)), encoding)

        return export


def _count(topic: str, result: Accepted | Refusal, encoding: Encoding) -> web.Response:
    if isinstance(result, Refusal):
        self_metrics.REQUESTS.labels("http", topic, result.code_name).inc()
        return encoding.refusal(result)
    self_metrics.REQUESTS.labels("http", topic, code_pb2.Code.Name(code_pb2.OK)).inc()
    return encoding.success(topic, result)
