"""Records that could not be processed -> ``otlp_dead_letter`` on Kafka: where they are, why, and what is in
them.

Rare, so connected on first use.
"""

import asyncio
import logging
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)

from log.kafka.security import PLAINTEXT, KafkaSecuritySettings
from schemas import self_metrics
from schemas.dead_letters import CUT, LEFT_OUT, payload_of
from schemas.records import DeadLetter, Record, TopicPartition
from schemas.topics import DEAD_LETTER

_LOGGER = logging.getLogger(__name__)
_RETRY_S = 1.0
_TRIES = 3
"""How often what will hardly pass is tried: rights of a topic that was just made may take a moment to be
known to every broker.
"""

_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
_PERMANENT = (
    *_TOO_LARGE,
    TopicAuthorizationFailedError,
    ClusterAuthorizationFailedError,
    InvalidTopicError,
    PolicyViolationError,
)
_MAX_HEADER_BYTES = 4 << 10
"""Of a reason or a key: headers count as the record's size too."""

MAX_BYTES = 900 << 10
"""Of a payload that goes along: brokers take records up to 1 MiB where nobody told them otherwise."""


class DeadLetterWriter:
    """Writes one record for each dead letter; its value is the payload.

    Its key is ``TOPIC/PARTITION/OFFSET`` of the record that was set aside, by which a repetition is known;
    headers ``topic``, ``partition``, ``offset``, ``time_ns`` (when the log took it), ``size`` (bytes of
    OTLP), ``reason``, ``key`` (where it had one), the record's text headers and ``payload``: ``whole``,
    ``cut`` (its first bytes) or ``left out`` (too large to be held, or for the topic). The record itself
    also stays where it is, for as long as its topic keeps it.
    """

    def __init__(
        self,
        bootstrap: Sequence[str],
        prefix: str,
        security: KafkaSecuritySettings = PLAINTEXT,
        *,
        source_prefix: str | None = None,
    ) -> None:
        """``prefix``: of the dead letters' topic; ``source_prefix``: of the topics that records come from,
        where it is another one.
        """
        self._bootstrap = list(bootstrap)
        self._prefix = prefix
        self._source_prefix = prefix if source_prefix is None else source_prefix
        self._security = security
        self._producer: AIOKafkaProducer | None = None
        self._connecting = asyncio.Lock()

    async def write(self, tp: TopicPartition, letters: Sequence[DeadLetter]) -> None:
        """Return when all are in the topic; as long as brokers are away, wait.

        A letter that they refuse for what it is, or for who we are, is given up: it is logged and counted,
        and its record stays where it is. Waiting would hold up the partition that it comes from, for ever.
        """
        for letter in letters:
            await self._write(tp, letter)

    async def _write(self, tp: TopicPartition, letter: DeadLetter) -> None:
        tries = 0
        while True:
            try:
                await self._send(await self._connected(), tp, letter)
            except KafkaError as error:
                tries += isinstance(error, _PERMANENT)
                if tries >= _TRIES:
                    place = (self._source_prefix + tp.topic, tp.partition, letter.offset)
                    _LOGGER.error(
                        "the dead letter of %s/%d, offset %d, is given up, its record stays there: %r",
                        *place,
                        error,
                    )
                    self_metrics.DEAD_LETTERS_GIVEN_UP.labels(tp.topic).inc()
                    return
                _LOGGER.warning("dead letters wait: %r", error)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def close(self) -> None:
        """Let go of the brokers."""
        if self._producer is not None:
            await self._producer.stop()

    async def _send(self, producer: AIOKafkaProducer, tp: TopicPartition, letter: DeadLetter) -> None:
        record = letter.record
        place = (self._source_prefix + tp.topic, str(tp.partition), str(record.offset))
        headers = [
            *(
                (name, text.encode())
                for name, text in zip(("topic", "partition", "offset"), place, strict=True)
            ),
            ("time_ns", str(record.append_time_ns).encode()),
            ("size", str(record.size).encode()),
            ("reason", letter.reason.encode(errors="replace")[:_MAX_HEADER_BYTES]),
            *([("key", record.key[:_MAX_HEADER_BYTES])] if record.key else []),
            *((name, text.encode()) for name, text in record.labels.items()),
        ]
        payload, extent = _payload(record)
        for value, named in ((payload, extent), (b"", LEFT_OUT)):
            try:
                await producer.send_and_wait(
                    self._prefix + DEAD_LETTER,
                    value,
                    key="/".join(place).encode(),
                    headers=[*headers, ("payload", named.encode())],
                )
            except _TOO_LARGE:
                if not value:
                    raise
            else:
                return

    async def _make_topic(self) -> None:
        """Ingest makes it with the others; where only foreign writers write, nobody has."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap, **self._security.client_options())
        try:
            await admin.start()
            if self._prefix + DEAD_LETTER not in await admin.list_topics():
                # without a replication factor (-1: the brokers' default) aiokafka wants to be given
                # assignments, be there none
                made = await admin.create_topics(
                    [NewTopic(self._prefix + DEAD_LETTER, 1, -1, replica_assignments={})]
                )
                for name, code, *message in made.topic_errors:
                    error: type[KafkaError] = for_code(code)
                    if code and error is not TopicAlreadyExistsError:  # another process may have been first
                        raise error(
                            f"topic {name} could not be made: {message[0] if message else error.__name__}"
                        )
        finally:
            await admin.close()

    async def _connected(self) -> AIOKafkaProducer:
        async with self._connecting:
            if self._producer is None:
                await self._make_topic()
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._bootstrap,
                    acks="all",
                    compression_type="zstd",
                    max_request_size=4 << 20,
                    **self._security.client_options(),
                )
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer


def _payload(record: Record) -> tuple[bytes, str]:
    """What goes along of a record's payload, and how much of it that is."""
    payload, extent = payload_of(record)
    return payload[:MAX_BYTES], extent if len(payload) <= MAX_BYTES else CUT
