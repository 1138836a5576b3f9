"""OTLP/HTTP: POST /v1/traces, /v1/metrics and /v1/logs, protobuf or JSON, gzip or plain; GET /health.

OTLP specification, "OTLP/HTTP": 200 with the Export response, errors with ``google.rpc.Status``, both encoded
as the request was; 429 and 503 with Retry-After may be repeated, 400, 413 and 415 must not.
"""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp import web
from google.protobuf.message import Message
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
from ingest.receive import Receiver, Unpack
from ingest.security import Credentials, TlsIdentity, authorize
from ingest.settings import IngestSettings
from schemas import self_metrics, topics
from schemas.errors import AddressInUse, MalformedOtlp
from schemas.otlp import json as otlp_json
from schemas.otlp.responses import FULL_SUCCESS, FULL_SUCCESS_JSON, partial_success, to_json

PATHS = {"/v1/traces": topics.SPANS, "/v1/metrics": topics.METRICS, "/v1/logs": topics.LOGS}

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

_BACKLOG = 1024  # connections that wait to be accepted: a mesh comes back all at once

_CHUNK_BYTES = 64  # what a piece of a body costs besides its bytes

_GZIP_WBITS = 31  # zlib's window bits for data with a gzip header


def gunzip(body: bytes, limit: int) -> bytes:
    """``body`` unpacked (RFC 1952, several members too), never making more than ``limit`` bytes and one.

    Raises RequestTooLarge beyond ``limit``, MalformedOtlp where it is not gzip or ends too early.
    """
    unpacked: list[bytes] = []
    room = limit
    while body:
        member = zlib.decompressobj(_GZIP_WBITS)
        try:
            unpacked.append(member.decompress(body, room + 1))
        except zlib.error as error:
            raise MalformedOtlp(f"not gzip: {error}") from error
        room -= len(unpacked[-1])
        if room < 0:
            raise RequestTooLarge(f"the request unpacks to more than {limit:,} bytes")
        if not member.eof:
            raise MalformedOtlp("the gzip data ends too early")
        body = member.unused_data
    return b"".join(unpacked)


@dataclass(frozen=True, slots=True)
class _Encoding:
    """How a request is encoded, and so its answer."""

    json: bool
    gzip: bool
    limit: int

    def unpack(self, topic: str) -> Unpack | None:
        """What makes protobuf of the body, None where it is that already."""
        return partial(self._unpack, topic) if self.json or self.gzip else None

    def _unpack(self, topic: str, body: bytes) -> bytes:
        plain = gunzip(body, self.limit) if self.gzip else body
        return otlp_json.to_protobuf(topic, plain) if self.json else plain

    def answer(
        self, message: Message, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> web.Response:
        """``message`` as the body of a response."""
        body = to_json(message) if self.json else message.SerializeToString()
        return web.Response(
            body=body, status=status, content_type=JSON if self.json else PROTOBUF, headers=headers
        )

    def success(self, topic: str, accepted: Accepted) -> web.Response:
        """200, with ``partial_success`` where items were rejected."""
        if accepted.rejected:
            return self.answer(partial_success(topic, accepted.rejected, accepted.reason))
        body = FULL_SUCCESS_JSON if self.json else FULL_SUCCESS
        return web.Response(body=body, content_type=JSON if self.json else PROTOBUF)

    def refusal(self, refusal: Refusal) -> web.Response:
        """The error and its ``google.rpc.Status``."""
        headers = {}
        if refusal.retry_after_header is not None:
            headers["Retry-After"] = refusal.retry_after_header
        if refusal.http_status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="meshflow"'
        return self.answer(refusal.status(), refusal.http_status, headers)


def _encoding(content_type: str, content_encoding: str, settings: IngestSettings) -> _Encoding:
    if content_type not in (PROTOBUF, JSON):
        raise UnsupportedMedia(f"content type {content_type!r} is not read here; send {PROTOBUF} or {JSON}")
    if content_encoding not in ("", "identity", "gzip"):
        raise UnsupportedMedia(f"content encoding {content_encoding!r} is not read here; send gzip or none")
    json = content_type == JSON
    limit = min(settings.max_message, settings.max_json_message) if json else settings.max_message
    return _Encoding(json, content_encoding == "gzip", limit)


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


class _Gate(asyncio.Protocol):
    """Hands a new connection to ``server``, or closes it where that has ``limit`` of them."""

    def __init__(self, server: web.Server, limit: int) -> None:
        self._server = server
        self._limit = limit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        if len(self._server.connections) >= self._limit:
            self_metrics.HTTP_CONNECTIONS_REFUSED.inc()
            transport.close()
            return
        handler = self._server()
        transport.set_protocol(handler)
        handler.connection_made(transport)


async def _body(request: web.Request, limit: int, timeout_s: float, receiving: _Receiving) -> bytes:
    """The body as sent. Raises RequestTooLarge, at once where the request says its length, RequestTooSlow and
    ReceivingTooMuch.
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
        settings = self._settings
        self._runner = web.AppRunner(
            app,
            access_log=None,
            lingering_time=1,  # of a refused body: as long as a sender needs to see the answer
            handle_signals=False,
            auto_decompress=False,  # unpacked here, with a limit and an answer that says what is wrong
            keepalive_timeout=settings.keepalive_timeout.total_seconds(),
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
        return _Gate(self._runner.server, self._settings.max_http_connections)

    async def _health(self, _request: web.Request) -> web.Response:
        if self._stopping:
            return web.json_response({"status": "NOT_SERVING"}, status=503)
        return web.json_response({"status": "SERVING"})

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
            encoding = _Encoding(
                json=request.content_type != PROTOBUF, gzip=False, limit=0
            )  # for the answer, until all of it is known
            if reason := self._refused(request):
                self_metrics.UNAUTHENTICATED.labels("http", reason).inc()
                return _count(topic, UNAUTHENTICATED[reason], encoding)
            try:
                encoding = _encoding(
                    request.content_type, request.headers.get("Content-Encoding", "").lower(), self._settings
                )
                body = await _body(request, encoding.limit, timeout_s, self._receiving)
            except (UnsupportedMedia, RequestTooLarge, RequestTooSlow, ReceivingTooMuch) as error:
                if isinstance(error, ReceivingTooMuch):
                    self_metrics.UNREAD.labels("http", topic).inc()
                return _count(topic, refusal_of(error, retry_after_s), encoding)
            return _count(topic, await self._receiver.receive(topic, body, encoding.unpack(topic)), encoding)

        return export


def _count(topic: str, result: Accepted | Refusal, encoding: _Encoding) -> web.Response:
    if isinstance(result, Refusal):
        self_metrics.REQUESTS.labels("http", topic, result.code_name).inc()
        return encoding.refusal(result)
    self_metrics.REQUESTS.labels("http", topic, code_pb2.Code.Name(code_pb2.OK)).inc()
    return encoding.success(topic, result)
