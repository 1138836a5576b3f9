"""What is in a Kafka log, as schemas.records.LogReader: for tests, which hold it against what the Faust app
makes of it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from log.kafka.consumer import stop_consumer
from schemas.records import COUNTS, Commit, Record, TopicPartition, labels_of
from schemas.topics import TOPICS

_PATIENCE_S = 120.0


async def _patiently(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Ask until brokers answer."""
    give_up_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return await ask()
        except (KafkaError, TimeoutError):
            if time.monotonic() > give_up_s:
                raise
            await asyncio.sleep(0.2)


class KafkaLogReader:
    """Reads single partitions; commits as the group ``group``."""

    def __init__(self, consumer: AIOKafkaConsumer, prefix: str) -> None:
        self._consumer = consumer
        self._prefix = prefix

    @classmethod
    async def open(cls, bootstrap: str, prefix: str, group: str) -> "KafkaLogReader":
        """Try until brokers answer: one that stood still a moment ago may drop connections."""
        give_up_s = time.monotonic() + _PATIENCE_S
        while True:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=bootstrap,
                group_id=group,
                enable_auto_commit=False,
                auto_offset_reset="none",
            )
            try:
                await consumer.start()
                reader = cls(consumer, prefix)
                await reader.partitions()
            except BaseException as error:
                await stop_consumer(consumer)
                if not isinstance(error, (KafkaError, TimeoutError)) or time.monotonic() > give_up_s:
                    raise
                await asyncio.sleep(0.2)
            else:
                return reader

    async def partitions(self) -> list[TopicPartition]:
        """See schemas.records.LogReader.partitions. Those that were made since the last call can be read
        from now on.
        """
        cluster = await _patiently(
            self._consumer._client.fetch_all_metadata
        )  # partitions_for_topic knows of subscribed topics only
        found = [
            TopicPartition(topic, partition)
            for topic in TOPICS
            for partition in sorted(cluster.partitions_for_topic(self._prefix + topic) or ())
        ]
        if {self._kafka(tp) for tp in found} != self._consumer.assignment():
            self._consumer.assign([self._kafka(tp) for tp in found])
        return found

    async def beginning(self, tp: TopicPartition) -> int:
        """See schemas.records.LogReader.beginning."""
        return int(
            (await _patiently(partial(self._consumer.beginning_offsets, [self._kafka(tp)])))[self._kafka(tp)]
        )

    async def end(self, tp: TopicPartition) -> int:
        """See schemas.records.LogReader.end."""
        return int(
            (await _patiently(partial(self._consumer.end_offsets, [self._kafka(tp)])))[self._kafka(tp)]
        )

    async def read(self, tp: TopicPartition, offset: int, max_bytes: int) -> list[Record]:
        """See schemas.records.LogReader.read."""
        kafka, end = self._kafka(tp), await self.end(tp)
        self._consumer.seek(kafka, offset)
        records: list[Record] = []
        taken = 0
        while offset < end and taken < max_bytes:
            message = await asyncio.wait_for(self._consumer.getone(kafka), 120)
            records.append(record_of(message))
            taken += records[-1].size + 1
            offset = message.offset + 1
        return records

    async def committed(self, tp: TopicPartition) -> Commit | None:
        """See schemas.records.LogReader.committed."""
        known = (await self._consumer._coordinator.fetch_committed_offsets([self._kafka(tp)])).get(
            self._kafka(tp)
        )
        return Commit(known.offset, known.metadata) if known and known.offset >= 0 else None

    async def commit(self, tp: TopicPartition, commit: Commit) -> None:
        """See schemas.records.LogReader.commit."""
        await self._consumer.commit({self._kafka(tp): OffsetAndMetadata(commit.offset, commit.metadata)})

    async def close(self) -> None:
        """See schemas.records.LogReader.close."""
        await stop_consumer(self._consumer)

    def _kafka(self, tp: TopicPartition) -> KafkaPartition:
        return KafkaPartition(self._prefix + tp.topic, tp.partition)


def record_of(message: ConsumerRecord) -> Record:
    """A Kafka record as meshflow's."""
    headers = {name: int(value) for name, value in message.headers if name in COUNTS}
    return Record(
        message.offset,
        message.timestamp * 1_000_000,
        message.value,
        len(message.value),
        headers=headers,
        labels=labels_of(message.headers),
    )
