"""What both protocols do with a request: split it, gather it, wait for the log."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ingest.admission import INTERNAL, Accepted, Refusal, RequestTooLarge, UnsupportedMedia, refusal_of
from ingest.gather import Gather
from ingest.settings import IngestSettings
from schemas import otlp
from schemas.errors import LogFull, LogUnavailable, MalformedOtlp

_LOGGER = logging.getLogger(__name__)

SPLIT_INLINE_BYTES = 1 << 20
"""Up to this size a request is split on the event loop (0.2 ms native, 11 ms reference): handing it to a
thread costs as much.
"""

UNPACK_INLINE_BYTES = 16 << 10
"""The same for requests that have to be unpacked or converted first, which takes far longer a byte."""

MAX_COUNTED = 8
"""How many large requests may be looked at at once, only to count their items, while the buffer is full."""

Unpack = Callable[[bytes], bytes]


class Receiver:
    """Takes requests of one topic each; ``partitions`` is how many each topic has."""

    def __init__(self, gather: Gather, partitions: int, settings: IngestSettings) -> None:
        self._gather = gather
        self._partitions = partitions
        self._retry_after_s = settings.retry_after.total_seconds()
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="meshflow-split")
        self._counting = 0

    async def receive(self, topic: str, body: bytes, unpack: Unpack | None = None) -> Accepted | Refusal:
        """Answer when the log has the request, or when it is refused.

        ``unpack`` makes the OTLP protobuf of ``body`` where it is something else; it may raise MalformedOtlp
        or RequestTooLarge.
        """
        try:
            if len(body) <= (UNPACK_INLINE_BYTES if unpack else SPLIT_INLINE_BYTES):
                split = self._split(topic, body, unpack)
            else:
                split = await self._split_in_thread(topic, body, unpack)
            accepted = Accepted(split.rejected, split.reason)
            if not split.parts and not split.rejected:
                return accepted
            logged = self._gather.add(topic, split, len(body))
            del split  # the parts live on in the gather only, which frees them as it joins them
            error = await logged
        except (MalformedOtlp, RequestTooLarge, UnsupportedMedia, LogFull, LogUnavailable) as refused:
            return refusal_of(refused, self._retry_after_s)
        except Exception:
            _LOGGER.exception("a request to %s failed", topic)
            return INTERNAL
        return accepted if error is None else refusal_of(error, self._retry_after_s)

    def _split(self, topic: str, body: bytes, unpack: Unpack | None) -> otlp.Split:
        return otlp.split(topic, unpack(body) if unpack else body, self._partitions)

    async def _split_in_thread(self, topic: str, body: bytes, unpack: Unpack | None) -> otlp.Split:
        """Off the loop, with the body's bytes held; where there is no room for them only to count what is
        refused.
        """
        reserved = self._gather.reserve(len(body))
        if not reserved and self._counting >= MAX_COUNTED:
            raise LogFull("the buffer in front of the log is full", self._retry_after_s)
        self._counting += not reserved
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self._split, topic, body, unpack
            )
        finally:
            self._counting -= not reserved
            if reserved:
                self._gather.release(len(body))

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False)
