"""Topics of the Kafka cases: made alike for every system, and counted in the end."""

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from log.kafka.consumer import stop_consumer
from schemas.otlp import split
from schemas.topics import SPANS

PARTITIONS = 4
"""meshflow's default."""


def make_topic(kafka: str, prefix: str) -> None:
    """The topic of spans as ``meshflow ingest`` makes it: others may count on it."""
    asyncio.run(_make(kafka, prefix + SPANS))


def count_spans(kafka: str, prefix: str) -> int:
    """Spans in the topic."""
    return asyncio.run(_count(kafka, prefix + SPANS))


async def _make(kafka: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        config = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(8 << 20)}
        made = await admin.create_topics([NewTopic(topic, PARTITIONS, 1, topic_configs=config)])
        if made.topic_errors[0][1]:
            raise RuntimeError(f"topic {topic} could not be made: {made.topic_errors}")
    finally:
        await admin.close()


async def _count(kafka: str, topic: str) -> int:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka, auto_offset_reset="earliest", max_partition_fetch_bytes=8 << 20
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        spans = 0
        while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                spans += sum(split(SPANS, record.value, 1).items for record in records if record.value)
        return spans
    finally:
        await stop_consumer(consumer)
