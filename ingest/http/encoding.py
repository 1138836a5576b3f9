"""How an OTLP/HTTP request is encoded: protobuf or JSON, packed or plain; its answer is as the request."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from aiohttp import web
from google.protobuf.message import Message

from ingest.admission import Accepted, Refusal, UnsupportedMedia
from ingest.http.unpacking import ACCEPTED, UNPACKERS
from ingest.receive import Unpack
from ingest.settings import IngestSettings
from schemas.otlp import Mended
from schemas.otlp import json as otlp_json
from schemas.otlp.responses import FULL_SUCCESS, FULL_SUCCESS_JSON, partial_success, to_json

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

_SHOWN = 100  # characters of a header's value that an answer repeats


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a request is encoded, and so its answer."""

    json: bool
    packed: str
    """A key of UNPACKERS, "" for a plain body."""
    limit: int

    def unpack(self, topic: str) -> Unpack | None:
        """What makes protobuf of the body, None where it is that already."""
        return partial(self._unpack, topic) if self.json or self.packed else None

    def _unpack(self, topic: str, body: bytes, limit: int) -> bytes | Mended:
        plain = UNPACKERS[self.packed](body, min(limit, self.limit)) if self.packed else body
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
        if refusal.http_status == 415:
            headers["Accept"] = f"{PROTOBUF}, {JSON}"
            headers["Accept-Encoding"] = ACCEPTED
        if refusal.http_status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="meshflow"'
        return self.answer(refusal.status(), refusal.http_status, headers)


def encoding_of(content_type: str, content_encoding: str, settings: IngestSettings) -> Encoding:
    """The encoding that a request's headers name. Raises UnsupportedMedia."""
    if content_type not in (PROTOBUF, JSON):
        raise UnsupportedMedia(
            f"content type {_shown(content_type)} is not read here; send {PROTOBUF} or {JSON}"
        )
    packed = "" if content_encoding == "identity" else content_encoding
    if packed and packed not in UNPACKERS:
        raise UnsupportedMedia(
            f"content encoding {_shown(content_encoding)} is not read here; send {ACCEPTED} or none"
        )
    json = content_type == JSON
    limit = min(settings.max_message, settings.max_json_message) if json else settings.max_message
    return Encoding(json, packed, limit)


def _shown(value: str) -> str:
    """In ASCII: a header's bytes beyond that are no text that an answer could hold."""
    return ascii(value if len(value) <= _SHOWN else value[:_SHOWN] + "...")
