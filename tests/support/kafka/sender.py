"""A client of ``meshflow ingest`` that knows which of its spans were acknowledged, and where spans are in the
topics.
"""

import asyncio
from collections import Counter
from contextlib import suppress

import grpc
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas.topics import SPANS
from tests.support.kafka.place import KafkaPlace
from tests.support.receiving import export, retry_delay_s, span_ids, traces

SPANS_EACH = 5


class Sender:
    """Sends request after request, never the same span twice, whatever becomes of them."""

    def __init__(self, first: int = 0) -> None:
        self._next = first
        self.acknowledged: set[bytes] = set()
        self.refused: set[bytes] = set()
        """Of which the answer was that they were not taken."""
        self.retry_s: set[float | None] = set()

    async def send(self, target: str, requests: int, at_once: int = 10) -> None:
        """Send so many; connections are made anew where they break."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(self._send(target, requests // at_once))

    async def send_until(self, target: str, enough: asyncio.Event) -> None:
        """Send without end."""
        while not enough.is_set():
            await self.send(target, 10)
            await asyncio.sleep(0.02)

    async def _send(self, target: str, requests: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(target, options=options) as channel:
            for _ in range(requests):
                first, self._next = self._next, self._next + SPANS_EACH
                ids = span_ids(first, SPANS_EACH)
                try:
                    await export(channel, traces(first, SPANS_EACH), timeout=60)
                except grpc.aio.AioRpcError as error:
                    self.refused.update(ids)
                    if error.code() is grpc.StatusCode.UNAVAILABLE and "spool" in (error.details() or ""):
                        self.retry_s.add(retry_delay_s(error))
                else:
                    self.acknowledged.update(ids)


async def logged(place: KafkaPlace) -> Counter[bytes]:
    """How often each span is in the topic."""
    reader = await place.open_reader("logged")
    ids: Counter[bytes] = Counter()
    try:
        for tp in await reader.partitions():
            if tp.topic != SPANS:
                continue
            for record in await reader.read(tp, await reader.beginning(tp), 1 << 40):
                data = TracesData.FromString(record.unpack())
                ids.update(
                    span.span_id
                    for resource in data.resource_spans
                    for scope in resource.scope_spans
                    for span in scope.spans
                )
    finally:
        with suppress(Exception):
            await reader.close()
    return ids
