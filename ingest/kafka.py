"""The log on Kafka, writing side (schemas.log.LogWriter): idempotent, acknowledged by every in-sync replica, stamped by the brokers."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError

from ingest import kafka_topics
from ingest.oversize import cut
from ingest.settings import KafkaWriterSettings
from schemas.errors import LogUnavailable
from schemas.kafka_security import PLAINTEXT, KafkaSecuritySettings
from schemas.log import Append, TopicPartition
from schemas.units import NS_PER_S

_LOGGER = logging.getLogger(__name__)

_REQUEST_BYTES = 96 << 20
"""What aiokafka lets pass; brokers take requests up to 100 MiB (socket.request.max.bytes) and judge records by the topic."""

_RECORD_OVERHEAD_BYTES = 4 << 10
"""What a record takes besides its value: batch and record headers."""


class KafkaLogWriter:
    """Writes to topics of a cluster; any number of writers may do so at once.

    While brokers are away at most one append a partition is held by the producer, the others wait for it and are then refused.
    An append that was given up may still get into the log later: processing drops its spans as copies.
    """

    def __init__(
        self,
        bootstrap: Sequence[str],
        topics: Mapping[str, int],
        settings: KafkaWriterSettings,
        prefix: str = "",
        security: KafkaSecuritySettings = PLAINTEXT,
    ) -> None:
        """See :meth:`open`, which makes a usable one."""
        self._bootstrap = list(bootstrap)
        self._topics = dict(topics)
        self._prefix = prefix
        self._security = security
        self._settings = settings
        self._timeout_s = settings.append_timeout.total_seconds()
        self._limits: Mapping[str, int] = {}
        self._producer: AIOKafkaProducer | None = None
        self._renewing = asyncio.Lock()
        self._watcher: AIOKafkaConsumer | None = None
        self._closed = False
        opened_s = time.monotonic()
        tps = [TopicPartition(topic, partition) for topic, count in topics.items() for partition in range(count)]
        self._acked_s = dict.fromkeys(tps, opened_s)
        self._moved_s = dict.fromkeys(tps, opened_s)
        self._ends: dict[TopicPartition, int] = {}

    @classmethod
    async def open(
        cls,
        bootstrap: Sequence[str],
        topics: Mapping[str, int],
        settings: KafkaWriterSettings,
        prefix: str = "",
        security: KafkaSecuritySettings = PLAINTEXT,
    ) -> "KafkaLogWriter":
        """Connect; make ``topics`` (name -> partitions, each name after ``prefix``) where they are not there, else check them.

        Raises LogUnavailable: no broker answers, or a topic is not as it has to be.
        """
        writer = cls(bootstrap, topics, settings, prefix, security)
        try:
            async with asyncio.timeout(kafka_topics.TIMEOUT_S):
                writer._limits = await kafka_topics.ensure(bootstrap, topics, settings, prefix, security)
                await writer._connected()
                await writer._look(list(writer._acked_s))
        except (KafkaError, TimeoutError) as error:
            await writer.close()
            raise LogUnavailable(f"Kafka at {','.join(bootstrap)} does not answer: {error!r}") from error
        except BaseException:
            await writer.close()
            raise
        return writer

    async def append(self, appends: Sequence[Append]) -> None:
        """See schemas.log.LogWriter.append. An append that is larger than the topic's records may be becomes several of them."""
        if self._closed:
            raise LogUnavailable("the log's writer is closed")
        by_partition: dict[TopicPartition, list[Append]] = {}
        for append in appends:
            if append.tp not in self._acked_s:
                raise LogUnavailable(f"the log has no partition {append.tp.partition} of topic {append.tp.topic}")
            by_partition.setdefault(append.tp, []).extend(self._fitting(append))
        producer = None
        try:
            async with asyncio.timeout(self._timeout_s):
                producer = await self._connected()
                await asyncio.gather(*(self._send(producer, tp, fitting) for tp, fitting in by_partition.items()))
        except (TimeoutError, KafkaTimeoutError) as error:
            raise LogUnavailable(f"Kafka did not acknowledge records within {self._timeout_s:g} s") from error
        except KafkaError as error:
            await self._discard(producer)
            raise LogUnavailable(f"Kafka did not take records: {error!r}") from error

    async def tick(self, silent_ns: int) -> None:
        """See schemas.log.LogWriter.tick.

        Silent is a partition without an append of ours, and whose end has not moved, for so long. Before :meth:`open` looked at it
        nothing is known of it, so its silence begins there.
        """
        before_s = time.monotonic() - silent_ns / NS_PER_S
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._look([tp for tp, acked_s in self._acked_s.items() if acked_s < before_s])
        except (KafkaError, TimeoutError) as error:
            raise LogUnavailable(f"Kafka does not tell where partitions end: {error!r}") from error
        silent = [tp for tp, acked_s in self._acked_s.items() if max(acked_s, self._moved_s[tp]) < before_s]
        if silent:
            await self.append([Append(tp, b"") for tp in silent])

    async def close(self) -> None:
        """See schemas.log.LogWriter.close; what brokers do not take within the append timeout is given up."""
        self._closed = True
        producer, self._producer = self._producer, None
        watcher, self._watcher = self._watcher, None
        for client in (producer, watcher):
            if client is not None:
                await self._stop(client)

    async def _stop(self, client: Any) -> None:
        with suppress(KafkaError, TimeoutError):
            await asyncio.wait_for(client.stop(), self._timeout_s)

    async def _connected(self) -> AIOKafkaProducer:
        """The producer; a new one when there is none."""
        async with self._renewing:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._bootstrap,
                    enable_idempotence=True,
                    acks="all",
                    compression_type="zstd",
                    max_request_size=_REQUEST_BYTES,
                    request_timeout_ms=int(self._timeout_s * 1000),
                    metadata_max_age_ms=60_000,
                    **self._security.client_options(),
                )
                try:
                    await producer.start()
                except BaseException:
                    await self._stop(producer)
                    raise
                self._producer = producer
            return self._producer

    async def _discard(self, failed: AIOKafkaProducer | None) -> None:
        """After an error the sequence numbers of an idempotent producer have a hole, and brokers refuse whatever follows."""
        if failed is not None and failed is self._producer:
            self._producer = None
            await self._stop(failed)

    async def _send(self, producer: AIOKafkaProducer, tp: TopicPartition, appends: Sequence[Append]) -> None:
        acknowledged = []
        for append in appends:
            headers = [(name, str(count).encode()) for name, count in append.headers.items()]
            acknowledged.append(await producer.send(self._prefix + tp.topic, append.value, partition=tp.partition, headers=headers))
        for metadata in await asyncio.gather(*acknowledged):
            self._ends[tp] = max(self._ends.get(tp, 0), metadata.offset + 1)
        self._acked_s[tp] = time.monotonic()

    async def _look(self, tps: Sequence[TopicPartition]) -> None:
        """Note where partitions end, and which of them moved since the last look."""
        if not tps:
            return
        if self._watcher is None:
            watcher = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap, enable_auto_commit=False, metadata_max_age_ms=60_000, **self._security.client_options()
            )
            try:
                await watcher.start()
            except BaseException:
                await self._stop(watcher)
                raise
            self._watcher = watcher
        kafka = {KafkaPartition(self._prefix + tp.topic, tp.partition): tp for tp in tps}
        now_s = time.monotonic()
        for partition, end in (await self._watcher.end_offsets(list(kafka))).items():
            tp = kafka[partition]
            if end > self._ends.get(tp, -1):
                self._moved_s[tp] = now_s if tp in self._ends else self._moved_s[tp]
                self._ends[tp] = end

    def _fitting(self, append: Append) -> list[Append]:
        """The append as records that the topic takes; the counts go with the first one."""
        limit = self._limits[append.tp.topic] - _RECORD_OVERHEAD_BYTES
        pieces = []
        hopeless = 0
        for piece in cut(append.value, limit):
            if len(piece) > limit and len(pa.compress(piece, codec="zstd", asbytes=True)) > limit:
                hopeless += 1
            else:
                pieces.append(piece)
        headers = append.headers
        if hopeless:
            _LOGGER.error("%s: %d items are larger than a record may be (%d bytes) and were rejected", append.tp.topic, hopeless, limit)
            headers = {**headers, "rejected": headers.get("rejected", 0) + hopeless}
        first, *rest = pieces or [b""]
        return [Append(append.tp, first, headers), *(Append(append.tp, piece) for piece in rest)]
