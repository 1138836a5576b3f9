"""OTLP/HTTP: POST /v1/traces, /v1/metrics and /v1/logs, protobuf or JSON, gzip or plain; GET /health.

OTLP specification, "OTLP/HTTP": 200 with the Export response, errors with ``google.rpc.Status``, both encoded as the request was;
429 and 503 with Retry-After may be repeated, 400, 413 and 415 must not.
"""

import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from aiohttp import web
from google.protobuf.message import Message
from google.rpc import code_pb2

from ingest.admission import Accepted, Refusal, RequestTooLarge, UnsupportedMedia, refusal_of
from ingest.receive import Receiver, Unpack
from ingest.settings import IngestSettings
from schemas import otlp_json, self_metrics, topics
from schemas.errors import AddressInUse, MalformedOtlp
from schemas.otlp_responses import FULL_SUCCESS, FULL_SUCCESS_JSON, partial_success, to_json

PATHS = {"/v1/traces": topics.SPANS, "/v1/metrics": topics.METRICS, "/v1/logs": topics.LOGS}

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

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

    def answer(self, message: Message, status: int = 200, retry_after: str | None = None) -> web.Response:
        """``message`` as the body of a response."""
        body = to_json(message) if self.json else message.SerializeToString()
        headers = {"Retry-After": retry_after} if retry_after else None
        return web.Response(body=body, status=status, content_type=JSON if self.json else PROTOBUF, headers=headers)

    def success(self, topic: str, accepted: Accepted) -> web.Response:
        """200, with ``partial_success`` where items were rejected."""
        if accepted.rejected:
            return self.answer(partial_success(topic, accepted.rejected, accepted.reason))
        body = FULL_SUCCESS_JSON if self.json else FULL_SUCCESS
        return web.Response(body=body, content_type=JSON if self.json else PROTOBUF)

    def refusal(self, refusal: Refusal) -> web.Response:
        """The error and its ``google.rpc.Status``."""
        return self.answer(refusal.status(), refusal.http_status, refusal.retry_after_header)


def _encoding(content_type: str, content_encoding: str, settings: IngestSettings) -> _Encoding:
    if content_type not in (PROTOBUF, JSON):
        raise UnsupportedMedia(f"content type {content_type!r} is not read here; send {PROTOBUF} or {JSON}")
    if content_encoding not in ("", "identity", "gzip"):
        raise UnsupportedMedia(f"content encoding {content_encoding!r} is not read here; send gzip or none")
    json = content_type == JSON
    limit = min(settings.max_message, settings.max_json_message) if json else settings.max_message
    return _Encoding(json, content_encoding == "gzip", limit)


async def _body(request: web.Request, limit: int) -> bytes:
    """The body as sent. Raises RequestTooLarge, at once where the request says its length."""
    if (request.content_length or 0) > limit:
        raise RequestTooLarge(f"the request has {request.content_length:,} bytes, more than {limit:,}")
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > limit:
            raise RequestTooLarge(f"the request has more than {limit:,} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


class HttpServer:
    """The HTTP receiver on ``settings.host``; ``port`` is the one it got."""

    def __init__(self, receiver: Receiver, settings: IngestSettings) -> None:
        self._receiver = receiver
        self._settings = settings
        self._runner: web.AppRunner | None = None
        self._stopping = False
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises AddressInUse."""
        app = web.Application()
        app.router.add_get("/health", self._health)
        for path, topic in PATHS.items():
            app.router.add_post(path, self._export(topic))
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
            await web.TCPSite(self._runner, settings.host, settings.http_port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise AddressInUse(f"OTLP/HTTP cannot listen on {settings.host}:{settings.http_port}: {error}") from error
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Take no new requests, finish those that have begun; cut them off some time after ``settings.drain_time``."""
        self._stopping = True
        if self._runner is not None:
            await self._runner.cleanup()

    async def _health(self, _request: web.Request) -> web.Response:
        if self._stopping:
            return web.json_response({"status": "NOT_SERVING"}, status=503)
        return web.json_response({"status": "SERVING"})

    def _export(self, topic: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def export(request: web.Request) -> web.Response:
            encoding = _Encoding(json=True, gzip=False, limit=0)  # for the answer, until the request's own is known
            try:
                encoding = _encoding(request.content_type, request.headers.get("Content-Encoding", "").lower(), self._settings)
                body = await _body(request, encoding.limit)
            except (UnsupportedMedia, RequestTooLarge) as error:
                return _count(topic, refusal_of(error, 0), encoding)
            return _count(topic, await self._receiver.receive(topic, body, encoding.unpack(topic)), encoding)

        return export


def _count(topic: str, result: Accepted | Refusal, encoding: _Encoding) -> web.Response:
    if isinstance(result, Refusal):
        self_metrics.REQUESTS.labels("http", topic, result.code_name).inc()
        return encoding.refusal(result)
    self_metrics.REQUESTS.labels("http", topic, code_pb2.Code.Name(code_pb2.OK)).inc()
    return encoding.success(topic, result)
