"""The log on Kafka, writing side (schemas.records.LogWriter): idempotent, acknowledged by every in-sync
replica, stamped by the brokers.
"""

import asyncio
import logging
import struct
import time
from collections.abc import Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    ProducerClosed,
    TopicAuthorizationFailedError,
)

from log.kafka import lookup as kafka_lookup
from log.kafka import topics as kafka_topics
from log.kafka.consumer import stop_consumer
from log.kafka.security import PLAINTEXT, KafkaSecuritySettings
from log.kafka.settings import KafkaWriterSettings
from schemas.errors import LogUnavailable
from schemas.otlp.oversize import cut
from schemas.records import Append, TopicPartition
from schemas.units import NS_PER_S

_LOGGER = logging.getLogger(__name__)

_REQUEST_BYTES = 96 << 20
"""What aiokafka lets pass; brokers take requests up to 100 MiB (socket.request.max.bytes) and judge records
by the topic.
"""

_RECORD_OVERHEAD_BYTES = 4 << 10
"""What a record takes besides its value: batch and record headers."""


_CLOSE_S = 5.0
"""How long a client may take to let go of its connections."""

_SETTLE_S = 1.0
"""How long what was given up may still be delivered before its fate is looked for, and how long brokers may
take for what they have got.
"""

_PIECE = struct.Struct(">HI")


class _Record(NamedTuple):
    """An append that a record can hold; ``id`` is that of the append, then which piece of it this is."""

    append: Append
    id: bytes


class KafkaLogWriter:
    """Writes to topics of a cluster; any number of writers may do so at once.

    While brokers are away at most one append a partition is held by the producer, the others wait for it and
    are then refused. An append that was given up may still get into the log later; one that has an id can be
    looked for (:meth:`settle`, :meth:`find`).
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
        self._outgrown = False
        opened_s = time.monotonic()
        tps = [
            TopicPartition(topic, partition) for topic, count in topics.items() for partition in range(count)
        ]
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
        """Connect; make ``topics`` (name -> partitions, each name after ``prefix``) where they are not there,
        else check them.

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

    async def append(
        self, appends: Sequence[Append], ids: Sequence[bytes] = (), there: Collection[bytes] = ()
    ) -> None:
        """See schemas.records.LogWriter.append. An append that is larger than the topic's records may be
        becomes several of them.

        ``ids``: one for each append, unlike any other, by which :meth:`find` finds it. Records whose ids are
        ``there`` are left out.
        """
        if self._closed:
            raise LogUnavailable("the log's writer is closed")
        by_partition: dict[TopicPartition, list[_Record]] = {}
        for append, id_ in zip_longest(appends, ids, fillvalue=b""):
            assert isinstance(append, Append)
            if append.tp not in self._acked_s:
                raise LogUnavailable(
                    f"the log has no partition {append.tp.partition} of topic {append.tp.topic}"
                )
            made = await self._records(append, id_)
            records = by_partition.setdefault(append.tp, [])
            records += [record for record in made if not there or record.id not in there]
        producer = None
        try:
            async with asyncio.timeout(self._timeout_s):
                producer = await self._connected()
                await asyncio.gather(
                    *(self._send(producer, tp, records) for tp, records in by_partition.items())
                )
        except (TimeoutError, KafkaTimeoutError) as error:
            raise LogUnavailable(f"Kafka did not acknowledge records within {self._timeout_s:g} s") from error
        except KafkaError as error:
            self._outgrown |= isinstance(error, MessageSizeTooLargeError)
            await self._discard(producer, self._timeout_s)
            raise LogUnavailable(f"Kafka did not take records: {error!r}") from error

    def ends(self) -> dict[TopicPartition, int]:
        """Where each partition ended when we last knew: what is appended from now on gets these offsets or
        later ones.
        """
        return dict(self._ends)

    def end(self, tp: TopicPartition) -> int:
        """That of one partition."""
        return self._ends[tp]

    async def settle(self) -> None:
        """Return when nothing that was given up is under way any more: it is in the log by now, or will never
        be. Raises LogUnavailable.

        A request that a broker has received and not looked at yet is given a moment, from when brokers
        answer: one that stood still has such requests in its sockets. Topics' limits are read again where a
        record was too large.
        """
        try:
            await self._discard(self._producer, _SETTLE_S)
            if self._outgrown:
                async with asyncio.timeout(kafka_topics.TIMEOUT_S):
                    self._limits = await kafka_topics.ensure(
                        self._bootstrap, self._topics, self._settings, self._prefix, self._security
                    )
                self._outgrown = False
            async with asyncio.timeout(self._timeout_s):
                await self._connected()
        except (KafkaError, TimeoutError) as error:
            raise LogUnavailable(f"Kafka does not answer: {error!r}") from error
        await asyncio.sleep(_SETTLE_S)

    async def find(self, doubtful: Sequence[tuple[Append, bytes, int]]) -> set[bytes]:
        """Which records of (append, its id, offset from which it may be in the log) are there. Raises
        LogUnavailable.
        """
        wanted: dict[KafkaPartition, tuple[int, set[bytes]]] = {}
        for append, id_, since in doubtful:
            tp = KafkaPartition(self._prefix + append.tp.topic, append.tp.partition)
            first, ids = wanted.get(tp, (since, set()))
            records = await self._records(append, id_)
            wanted[tp] = (min(first, since), ids | {record.id for record in records})
        try:
            return (
                await kafka_lookup.find(self._bootstrap, self._security, wanted, self._timeout_s)
                if wanted
                else set()
            )
        except TopicAuthorizationFailedError as error:
            _LOGGER.error(
                "may not read topics, so what was given up is appended again, though it may be there already: %r",
                error,
            )
            return set()
        except KafkaError as error:
            raise LogUnavailable(f"Kafka does not say which topics it has: {error!r}") from error

    async def tick(self, silent_ns: int) -> None:
        """See schemas.records.LogWriter.tick.

        Silent is a partition without an append of ours, and whose end has not moved, for so long. Before
        :meth:`open` looked at it nothing is known of it, so its silence begins there.
        """
        before_s = time.monotonic() - silent_ns / NS_PER_S
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._look([tp for tp, acked_s in self._acked_s.items() if acked_s < before_s])
        except (KafkaError, TimeoutError) as error:
            raise LogUnavailable(f"Kafka does not say where partitions end: {error!r}") from error
        silent = [tp for tp, acked_s in self._acked_s.items() if max(acked_s, self._moved_s[tp]) < before_s]
        if silent:
            await self.append([Append(tp, b"") for tp in silent])

    async def close(self, flush_s: float | None = None) -> None:
        """See schemas.records.LogWriter.close; what brokers do not take within ``flush_s`` (the append
        timeout) is given up.
        """
        self._closed = True
        producer, self._producer = self._producer, None
        watcher, self._watcher = self._watcher, None
        if producer is not None:
            await _stop_producer(producer, self._timeout_s if flush_s is None else flush_s, _CLOSE_S)
        if watcher is not None:
            await _give_up(stop_consumer(watcher))

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
                    await _give_up(producer.stop())
                    raise
                self._producer = producer
            return self._producer

    async def _discard(self, failed: AIOKafkaProducer | None, flush_s: float) -> None:
        """After an error the sequence numbers of an idempotent producer have a hole, and brokers refuse
        whatever follows.
        """
        if failed is not None and failed is self._producer:
            self._producer = None
            await _stop_producer(failed, flush_s, 3 * self._timeout_s)

    async def _send(self, producer: AIOKafkaProducer, tp: TopicPartition, records: Sequence[_Record]) -> None:
        acknowledged = []
        for append, id_ in records:
            headers = [(name, str(count).encode()) for name, count in append.headers.items()]
            headers += [(name, text.encode()) for name, text in append.labels.items()]
            if id_:
                headers.append((kafka_lookup.ID, id_))
            acknowledged.append(
                await producer.send(
                    self._prefix + tp.topic, append.value, partition=tp.partition, headers=headers
                )
            )
        for metadata in await asyncio.gather(*acknowledged):
            self._ends[tp] = max(self._ends.get(tp, 0), metadata.offset + 1)
        self._acked_s[tp] = time.monotonic()

    async def _look(self, tps: Sequence[TopicPartition]) -> None:
        """Note where partitions end, and which of them moved since the last look."""
        if not tps:
            return
        if self._watcher is None:
            watcher = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                enable_auto_commit=False,
                metadata_max_age_ms=60_000,
                **self._security.client_options(),
            )
            try:
                await watcher.start()
            except BaseException:
                await _give_up(stop_consumer(watcher))
                raise
            self._watcher = watcher
        kafka = {KafkaPartition(self._prefix + tp.topic, tp.partition): tp for tp in tps}
        now_s = time.monotonic()
        for partition, end in (await self._watcher.end_offsets(list(kafka))).items():
            tp = kafka[partition]
            if end > self._ends.get(tp, -1):
                self._moved_s[tp] = now_s if tp in self._ends else self._moved_s[tp]
                self._ends[tp] = end

    def max_record_bytes(self, topic: str) -> int:
        """How large a record of ``topic`` may be, as far as that is known by now."""
        return self._limits.get(topic, self._settings.max_record) - _RECORD_OVERHEAD_BYTES

    async def _records(self, append: Append, id_: bytes) -> list[_Record]:
        """The append as records that the topic takes; the counts go with the first one, the labels with
        all.
        """
        limit = self.max_record_bytes(append.tp.topic)
        if len(append.value) <= limit:
            return [_Record(append, id_ and id_ + _PIECE.pack(0, len(append.value)))]
        messages, left_out = await asyncio.to_thread(cut, append.value, limit)
        headers = dict(append.headers)
        if left_out:
            _LOGGER.error(
                "%s: %d items are larger than a record may be (%d bytes, lowered since they came) and were rejected",
                append.tp.topic,
                left_out,
                limit,
            )
            headers["rejected"] = headers.get("rejected", 0) + left_out
        return [
            # the size too: pieces that were cut for another limit are others
            _Record(
                Append(append.tp, message, {} if i else headers, append.labels),
                id_ and id_ + _PIECE.pack(i, len(message)),
            )
            for i, message in enumerate(messages)
        ]


async def _stop_producer(producer: AIOKafkaProducer, flush_s: float, patience_s: float) -> None:
    """Let a producer deliver what it has for ``flush_s``, then make it give up: left to itself it would try
    for ever, out of sight.
    """
    stopping = asyncio.create_task(producer.stop())
    done, _ = await asyncio.wait({stopping}, timeout=flush_s)
    if not done:
        producer._message_accumulator.fail_all(
            ProducerClosed()
        )  # stop() waits for nothing else; there is no public way
        done, _ = await asyncio.wait({stopping}, timeout=patience_s)
    if not done:
        stopping.cancel()
        await asyncio.wait({stopping}, timeout=patience_s)
    if stopping.cancelled() or not stopping.done() or stopping.exception():
        # the sender trips over what was failed while it had it (KeyError in reenqueue), and has ended then:
        # connections are left
        await _give_up(producer.client.close())


async def _give_up(closing: Coroutine[Any, Any, None]) -> None:
    with suppress(KafkaError, TimeoutError):
        await asyncio.wait_for(closing, _CLOSE_S)
