"""What an app asks brokers besides reading: whether its topics are there, and what there is at an offset."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from log.kafka.consumer import stop_consumer
from log.kafka.security import PLAINTEXT, KafkaSecuritySettings
from schemas.errors import LogUnavailable

_LOGGER = logging.getLogger(__name__)

_START_S = 30.0
"""How long a start waits for the brokers."""

_PROBE_S = 10.0


@dataclass(frozen=True, slots=True)
class Brokers:
    """A Kafka cluster: ``HOST:PORT`` of some of its brokers, and how they are spoken to."""

    bootstrap: tuple[str, ...]
    security: KafkaSecuritySettings = PLAINTEXT

    def consumer(self, **settings: Any) -> AIOKafkaConsumer:
        """A consumer outside of any group, not started. Raises LogUnavailable: a certificate cannot be
        used.
        """
        return AIOKafkaConsumer(
            bootstrap_servers=list(self.bootstrap), **self.security.client_options(), **settings
        )


class Probe:
    """Looks at single offsets, with a consumer of its own: what it is sent is what there is, nothing is
    dropped on the way.

    Connected on first use; one look at a time.
    """

    def __init__(self, brokers: Brokers) -> None:
        self._brokers = brokers
        self._consumer: AIOKafkaConsumer | None = None
        self._busy = asyncio.Lock()

    async def look(self, kp: Any, offset: int) -> tuple[int, int]:
        """A partition's first offset, and the first one from ``offset`` on that has a record; there must be
        one.

        Raises LogUnavailable.
        """
        try:
            async with self._busy, asyncio.timeout(_PROBE_S):
                return await self._look(KafkaPartition(*kp), offset)
        except (KafkaError, TimeoutError) as error:
            raise LogUnavailable(f"Kafka does not answer: {error!r}") from error

    async def _look(self, here: KafkaPartition, offset: int) -> tuple[int, int]:
        consumer = await self._connected()
        beginning = int((await consumer.beginning_offsets([here]))[here])
        consumer.assign([here])
        consumer.seek(here, max(offset, beginning))
        there = int((await consumer.getone(here)).offset)
        return max(beginning, int((await consumer.beginning_offsets([here]))[here])), there

    async def close(self) -> None:
        """Let go of the brokers."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with suppress(KafkaError, TimeoutError):
                await asyncio.wait_for(stop_consumer(consumer), _PROBE_S)

    async def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = self._brokers.consumer(
                enable_auto_commit=False, auto_offset_reset="none", max_partition_fetch_bytes=1
            )
            try:
                await consumer.start()
            except BaseException:
                await stop_consumer(consumer)
                raise
            self._consumer = consumer
        return self._consumer


async def wait_for_topics(brokers: Brokers, topics: Mapping[str, int | None], stop: asyncio.Event) -> bool:
    """Wait until brokers answer and have one of ``topics`` (name -> partitions, None: any number); False when
    stopped before.

    Raises LogUnavailable: no broker answered for a while, or a topic has not as many partitions as it must
    have, or, where that matters, is not stamped by the brokers.
    """
    give_up_s = time.monotonic() + _START_S
    warned = False
    while not stop.is_set():
        try:
            counts = await _count_partitions(brokers, topics)
            for topic, count in counts.items():
                if count and topics[topic] not in {None, count}:
                    raise LogUnavailable(
                        f"topic {topic} has {count} partitions, processing.partitions says {topics[topic]}"
                    )
            if any(counts.values()):
                await _check_clock(
                    brokers, [topic for topic, count in counts.items() if count and topics[topic] is not None]
                )
                return True
        except KafkaError as error:
            if time.monotonic() > give_up_s:
                raise LogUnavailable(
                    f"Kafka at {','.join(brokers.bootstrap)} does not answer: {error!r}"
                ) from error
            counts = {}
        if counts and not warned:
            _LOGGER.warning(
                "waiting for topics %s: whoever writes them makes them (`meshflow ingest` its own)",
                ", ".join(topics),
            )
            warned = True
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1)
    return False


async def _count_partitions(brokers: Brokers, topics: Mapping[str, int | None]) -> dict[str, int]:
    """How many partitions each topic has; 0: it is not there. Raises KafkaError."""
    client = brokers.consumer()
    try:
        await client.start()
        cluster = await client._client.fetch_all_metadata()
        return {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
    finally:
        await stop_consumer(client)


async def _check_clock(brokers: Brokers, topics: Sequence[str]) -> None:
    """Log time is the brokers' clock: with the writers' clocks, one that is an hour ahead would hold every
    pane open for an hour.

    Raises LogUnavailable: the brokers stamp a topic's records as their writers wish; KafkaError: they do not
    answer.
    """
    if not topics:
        return
    admin = AIOKafkaAdminClient(
        bootstrap_servers=list(brokers.bootstrap), **brokers.security.client_options()
    )
    try:
        await admin.start()
        responses = await admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
        )
    finally:
        await admin.close()
    for code, message, _, topic, entries in (
        resource for response in responses for resource in response.resources
    ):
        if code:
            raise for_code(code)(f"the settings of topic {topic} cannot be read: {message}")
        if ("message.timestamp.type", "LogAppendTime") not in {(entry[0], entry[1]) for entry in entries}:
            raise LogUnavailable(
                f"topic {topic} is stamped by its writers' clocks; panes need the brokers': kafka-configs.sh --alter --bootstrap-server"
                f" {brokers.bootstrap[0]} --entity-type topics --entity-name {topic} --add-config message.timestamp.type=LogAppendTime"
            )
