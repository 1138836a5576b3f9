"""What is refused and why, as data: decisions without I/O, for gRPC and HTTP alike.

Codes and retry rules: OTLP specification, "Failures" and "OTLP/gRPC Throttling" (a sender may repeat
RESOURCE_EXHAUSTED only when RetryInfo comes with it) and "OTLP/HTTP Throttling" (429, 503 with Retry-After).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from google.rpc import code_pb2, error_details_pb2, status_pb2

from ingest.security import NO_TOKEN, NOT_BEARER, UNKNOWN_TOKEN
from schemas.errors import LogFull, LogUnavailable, MalformedOtlp, MeshflowError
from schemas.otlp import Split

MAX_COPIES = 16
"""So many times its size a request may take as parts: each partition's part has copies of the resources and
scopes of its items.
"""

SMALL_PARTS_BYTES = 1 << 20
"""Parts of any request may take as much."""

MaxRecordBytes = Callable[[str], int]
"""How many bytes a record of a topic may have in the log, as the log knows by now."""


class RequestTooLarge(MeshflowError):
    """The request is larger than a limit allows at any time: sending it again will not help."""


class RequestTooSlow(MeshflowError):
    """The request's body did not come in time."""


class ReceivingTooMuch(MeshflowError):
    """Other requests that have not come to their end take all the room there is for them."""


class UnsupportedMedia(MeshflowError):
    """A content type or content encoding that this receiver does not read."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request that the log has: how many of its items were ``rejected`` as invalid, and the ``reason``."""

    rejected: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that was not taken.

    ``code`` is a google.rpc.Code, ``http_status`` what OTLP/HTTP answers; ``retry_after_s`` is None where
    repeating it is no use.
    """

    code: int
    http_status: int
    message: str
    retry_after_s: float | None = None

    @property
    def code_name(self) -> str:
        """The name of ``code``: ``INVALID_ARGUMENT``, ``UNAVAILABLE``, ..."""
        return str(code_pb2.Code.Name(self.code))

    @property
    def retry_after_header(self) -> str | None:
        """HTTP's Retry-After: whole seconds, at least 1; None where repeating is no use."""
        return None if self.retry_after_s is None else str(max(1, math.ceil(self.retry_after_s)))

    def status(self) -> status_pb2.Status:
        """As google.rpc.Status, with RetryInfo where repeating helps (the body of HTTP errors,
        ``grpc-status-details-bin``).
        """
        status = status_pb2.Status(code=self.code, message=self.message)
        if self.retry_after_s is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromNanoseconds(round(self.retry_after_s * 1e9))
            status.details.add().Pack(retry)
        return status


_ASKED = 'this receiver asks for "authorization: Bearer TOKEN"'

UNAUTHENTICATED = {
    NO_TOKEN: Refusal(code_pb2.UNAUTHENTICATED, 401, f"{_ASKED}; the request has no token"),
    NOT_BEARER: Refusal(code_pb2.UNAUTHENTICATED, 401, f"{_ASKED}; the request has another scheme"),
    UNKNOWN_TOKEN: Refusal(code_pb2.UNAUTHENTICATED, 401, "the token is none of this receiver's"),
}
"""By the reason that :func:`ingest.security.authorize` gives."""

INTERNAL = Refusal(code_pb2.INTERNAL, 500, "an internal error; the receiver's log has the details")


def most_parts_bytes(request_bytes: int) -> int:
    """What the parts of a request may take at most."""
    return max(SMALL_PARTS_BYTES, MAX_COPIES * request_bytes)


def check_size(split: Split, request_bytes: int, max_record_bytes: int) -> None:
    """Raises RequestTooLarge for a request of ``request_bytes`` that can't be taken at any time: a record of
    the log can't hold one of its items, or its parts are too many times its size.
    """
    if split.record_bytes > max_record_bytes:
        raise RequestTooLarge(
            f"an item with its resource and scope, or these twice, takes {split.record_bytes:,} bytes of a"
            f" record; the log's records have {max_record_bytes:,}"
        )
    if split.bytes > most_parts_bytes(request_bytes):
        raise RequestTooLarge(
            f"the request has {request_bytes:,} bytes and takes {split.bytes:,} as parts by partition, more"
            f" than {MAX_COPIES} times as many: its resources are too large for its items"
        )


def never_fits(needed: int, limit_bytes: int) -> str:
    """Says why a request will never be taken."""
    return f"the request takes {needed:,} bytes to hold; the whole buffer has {limit_bytes:,} (buffer_size)"


def is_full(held: int, limit_bytes: int) -> str:
    """Says why a request is not taken now."""
    return f"the buffer in front of the log is full ({held:,} of {limit_bytes:,} bytes are held)"


def refusal_of(error: Exception, retry_after_s: float) -> Refusal:
    """The answer to a sender about ``error``; ``retry_after_s`` is used where the error itself names no
    delay.
    """
    match error:
        case MalformedOtlp():
            return Refusal(code_pb2.INVALID_ARGUMENT, 400, str(error))
        case UnsupportedMedia():
            return Refusal(code_pb2.INVALID_ARGUMENT, 415, str(error))
        case RequestTooSlow():
            return Refusal(code_pb2.DEADLINE_EXCEEDED, 408, str(error))
        case ReceivingTooMuch():
            return Refusal(code_pb2.RESOURCE_EXHAUSTED, 429, str(error), retry_after_s)
        case RequestTooLarge():
            return Refusal(code_pb2.RESOURCE_EXHAUSTED, 413, str(error))
        case LogFull():
            return Refusal(code_pb2.RESOURCE_EXHAUSTED, 429, str(error), error.retry_after_s)
        case LogUnavailable():
            return Refusal(code_pb2.UNAVAILABLE, 503, str(error), retry_after_s)
        case _:
            return INTERNAL
