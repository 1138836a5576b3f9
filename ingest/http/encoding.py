"""How an OTLP/HTTP request is encoded: protobuf or JSON, gzip or plain; its answer is encoded alike."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from aiohttp import web
from google.protobuf.message import Message

from ingest.admission import Accepted, Refusal, RequestTooLarge, UnsupportedMedia
from ingest.receive import Unpack
from ingest.settings import IngestSettings
from schemas.errors import MalformedOtlp
from schemas.otlp import Mended
from schemas.otlp import json as otlp_json
from schemas.otlp.responses import FULL_SUCCESS, FULL_SUCCESS_JSON, partial_success, to_json

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

MAX_MEMBERS = 1024
"""Of a gzip body: an empty one has 20 bytes and costs as much as many (``native/src/receive/inflate.rs`` has
the same).
"""

_GZIP_WBITS = 31  # zlib's window bits for data with a gzip header
_CHUNK_BYTES = 64 << 10  # zlib copies what follows the end of a member: never more than this
_SHOWN = 100  # characters of a header's value that an answer repeats


def gunzip(body: bytes, limit: int) -> bytes:
    """``body`` unpacked (RFC 1952, several members too), never making more than ``limit`` bytes and one.

    Raises RequestTooLarge beyond ``limit``, MalformedOtlp where it is not gzip, ends too early or has too
    many members.
    """
    unpacked: list[bytes] = []
    packed = memoryview(body)
    at, room, members = 0, limit, 0
    while at < len(packed):
        members += 1
        if members > MAX_MEMBERS:
            raise MalformedOtlp(f"the gzip data has more than {MAX_MEMBERS:,} members")
        member = zlib.decompressobj(_GZIP_WBITS)
        while not member.eof:
            chunk = packed[at : at + _CHUNK_BYTES]
            if not chunk:
                raise MalformedOtlp("the gzip data ends too early")
            try:
                unpacked.append(member.decompress(chunk, room + 1))
            except zlib.error as error:
                raise MalformedOtlp(f"not gzip: {error}") from error
            room -= len(unpacked[-1])
            if room < 0:
                raise RequestTooLarge(f"the request unpacks to more than {limit:,} bytes")
            at += len(chunk) - len(member.unused_data)
    return b"".join(unpacked)


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a request is encoded, and so its answer."""

    json: bool
    gzip: bool
    limit: int

    def unpack(self, topic: str) -> Unpack | None:
        """What makes protobuf of the body, None where it is that already."""
        return partial(self._unpack, topic) if self.json or self.gzip else None

    def _unpack(self, topic: str, body: bytes, limit: int) -> bytes | Mended:
        plain = gunzip(body, min(limit, self.limit)) if self.gzip else body
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


def encoding_of(content_type: str, content_encoding: str, settings: IngestSettings) -> Encoding:
    """The encoding that a request's headers name. Raises UnsupportedMedia."""
    if content_type not in (PROTOBUF, JSON):
        raise UnsupportedMedia(
            f"content type {_shown(content_type)} is not read here; send {PROTOBUF} or {JSON}"
        )
    if content_encoding not in ("", "identity", "gzip"):
        raise UnsupportedMedia(
            f"content encoding {_shown(content_encoding)} is not read here; send gzip or none"
        )
    json = content_type == JSON
    limit = min(settings.max_message, settings.max_json_message) if json else settings.max_message
    return Encoding(json, content_encoding == "gzip", limit)


def _shown(value: str) -> str:
    """In ASCII: a header's bytes beyond that are no text that an answer could hold."""
    return ascii(value if len(value) <= _SHOWN else value[:_SHOWN] + "...")
