"""What both protocols do with a request: split it, gather it, wait for the log."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from ingest.admission import (
    INTERNAL,
    SMALL_PARTS_BYTES,
    Accepted,
    MaxRecordBytes,
    Refusal,
    RequestTooLarge,
    UnsupportedMedia,
    check_size,
    most_parts_bytes,
    refusal_of,
)
from ingest.gather import Gather
from ingest.pending import REQUEST_OVERHEAD_BYTES
from ingest.settings import IngestSettings
from schemas import otlp
from schemas.errors import LogFull, LogUnavailable, MalformedOtlp

_LOGGER = logging.getLogger(__name__)

SPLIT_INLINE_BYTES = 1 << 20
"""Up to this size a request is split on the event loop (0.2 ms native, 11 ms reference): handing it to a
thread costs as much.
"""

UNPACK_INLINE_BYTES = 16 << 10
"""The same for requests that have to be unpacked or converted first, packed and unpacked: that takes far
longer a byte.
"""

MAX_COUNTED = 8
"""How many large requests may be looked at at once, only to count their items, while the buffer is full."""

Unpack = Callable[[bytes, int], bytes | otlp.Mended]
"""``unpack(body, limit)``: the OTLP protobuf of ``body``, or RequestTooLarge where that makes more than
``limit`` bytes before it is converted.
"""


class Receiver:
    """Takes requests of one topic each; ``partitions`` is how many each topic has."""

    def __init__(
        self, gather: Gather, partitions: int, settings: IngestSettings, max_record_bytes: MaxRecordBytes
    ) -> None:
        self._gather = gather
        self._partitions = partitions
        self._max_record_bytes = max_record_bytes
        self._max_message = settings.max_message
        self._retry_after_s = settings.retry_after.total_seconds()
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="meshflow-split")
        self._counting = 0

    async def receive(self, topic: str, body: bytes, unpack: Unpack | None = None) -> Accepted | Refusal:
        """Answer when the log has the request, or when it is refused.

        ``unpack`` makes the OTLP protobuf of ``body`` where it is something else; it may raise MalformedOtlp
        or RequestTooLarge.
        """
        held = _Held(self._gather)
        try:
            split = self._split_small(topic, body, unpack)
            if split is None:
                split = await self._split_in_thread(topic, body, unpack, held)
            accepted = Accepted(split.rejected, split.reason)
            if not split.parts and not split.rejected:
                return accepted
            held.release()  # the gather holds it from here on
            logged = self._gather.add(topic, split, len(body))
            del split  # the parts live on in the gather only, which frees them as it joins them
            error = await logged
        except (MalformedOtlp, RequestTooLarge, UnsupportedMedia, LogFull, LogUnavailable) as refused:
            return refusal_of(refused, self._retry_after_s)
        except Exception:
            _LOGGER.exception("a request to %s failed", topic)
            return INTERNAL
        finally:
            held.release()
        return accepted if error is None else refusal_of(error, self._retry_after_s)

    def _split_small(self, topic: str, body: bytes, unpack: Unpack | None) -> otlp.Split | None:
        """The split of a request that takes little time and memory, None where it takes more."""
        plain: bytes | otlp.Mended = body
        if unpack is not None:
            if len(body) > UNPACK_INLINE_BYTES:
                return None
            try:
                plain = unpack(body, UNPACK_INLINE_BYTES)
            except RequestTooLarge:
                return None
        size = _size(plain)
        if size > SPLIT_INLINE_BYTES:
            return None
        split = otlp.split(topic, plain, self._partitions, SMALL_PARTS_BYTES)
        return None if split.is_over else self._admitted(topic, split, size)

    async def _split_in_thread(
        self, topic: str, body: bytes, unpack: Unpack | None, held: "_Held"
    ) -> otlp.Split:
        """Off the loop, with the body's bytes held; where there is no room for them only to count what is
        refused.
        """
        has_room = held.grow(len(body))
        if not has_room and self._counting >= MAX_COUNTED:
            raise LogFull("the buffer in front of the log is full", self._retry_after_s)
        self._counting += not has_room
        try:
            split, plain_bytes = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._split, topic, body, unpack, held
            )
        finally:
            self._counting -= not has_room
        self._admitted(topic, split, plain_bytes)
        if split.is_over:
            needed = len(body) + split.bytes + REQUEST_OVERHEAD_BYTES
            self._gather.refuse(topic, split.items + split.rejected, needed)
        return split

    def _split(self, topic: str, body: bytes, unpack: Unpack | None, held: "_Held") -> tuple[otlp.Split, int]:
        """The split, whose parts have room or are none, and the size of the OTLP protobuf."""
        plain = unpack(body, self._max_message) if unpack else body
        size = _size(plain)
        expected = min(size + SMALL_PARTS_BYTES, most_parts_bytes(size))
        most_bytes = expected if held.grow(len(body) + expected) else 0
        split = otlp.split(topic, plain, self._partitions, most_bytes)
        if split.is_over and split.bytes <= most_parts_bytes(size) and held.grow(len(body) + split.bytes):
            split = otlp.split(topic, plain, self._partitions, split.bytes)
        return split, size

    def _admitted(self, topic: str, split: otlp.Split, request_bytes: int) -> otlp.Split:
        """Raises RequestTooLarge for what can't be taken at any time, and counts it."""
        try:
            check_size(split, request_bytes, self._max_record_bytes(topic))
        except RequestTooLarge:
            self._gather.reject(topic, split.items + split.rejected)
            raise
        return split

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False)


def _size(plain: bytes | otlp.Mended) -> int:
    return len(plain.payload if isinstance(plain, otlp.Mended) else plain)


class _Held:
    """Bytes of the buffer that a request holds while it is read. A sender that goes away ends the request
    before the thread that reads it has ended.
    """

    def __init__(self, gather: Gather) -> None:
        self._gather = gather
        self._bytes = 0
        self._ended = False
        self._lock = Lock()

    def grow(self, size: int) -> bool:
        """Hold ``size`` bytes in all; False, and as before, where there is no room or the request has
        ended.
        """
        with self._lock:
            if self._ended or (size > self._bytes and not self._gather.reserve(size - self._bytes)):
                return False
            self._bytes = max(size, self._bytes)
            return True

    def release(self) -> None:
        """Give all of it back: the request has ended."""
        with self._lock:
            self._ended = True
            self._gather.release(self._bytes)
            self._bytes = 0
