"""Records that could not be processed -> ``otlp_dead_letter`` on Kafka: where they are, and why. Rare, so connected on first use."""

import asyncio
import logging
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.log import TopicPartition
from schemas.topics import DEAD_LETTER

_LOGGER = logging.getLogger(__name__)
_RETRY_S = 1.0


class DeadLetterWriter:
    """Writes one record for each dead letter.

    Its key is ``TOPIC/PARTITION/OFFSET`` of the record that was set aside, by which a repetition is known; headers ``topic``,
    ``partition``, ``offset``, ``reason``. The record itself stays where it is, for as long as its topic keeps it.
    """

    def __init__(self, bootstrap: Sequence[str], prefix: str) -> None:
        self._bootstrap = list(bootstrap)
        self._prefix = prefix
        self._producer: AIOKafkaProducer | None = None
        self._connecting = asyncio.Lock()

    async def write(self, tp: TopicPartition, letters: Sequence[tuple[int, str]]) -> None:
        """Return when (offset, reason) of each record are in the topic; as long as brokers are away, wait."""
        while True:
            try:
                producer = await self._connected()
                for offset, reason in letters:
                    place = {"topic": self._prefix + tp.topic, "partition": str(tp.partition), "offset": str(offset)}
                    headers = [(name, text.encode()) for name, text in {**place, "reason": reason}.items()]
                    await producer.send_and_wait(self._prefix + DEAD_LETTER, b"", key="/".join(place.values()).encode(), headers=headers)
            except KafkaError as error:
                _LOGGER.warning("dead letters wait: %r", error)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def close(self) -> None:
        """Let go of the brokers."""
        if self._producer is not None:
            await self._producer.stop()

    async def _connected(self) -> AIOKafkaProducer:
        async with self._connecting:
            if self._producer is None:
                producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all")
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer
