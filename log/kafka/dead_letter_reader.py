"""Looks at ``otlp_dead_letter`` on Kafka, and notes there what was replayed: a record of the letter's key and
time without a value, its header ``replayed`` says how.

The topic is read from its beginning to where it ends now; what is held is bounded by the selection's limit.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from log.kafka.consumer import stop_consumer
from log.kafka.security import PLAINTEXT, KafkaSecuritySettings
from schemas.dead_letters import LEFT_OUT, REASONS, Found, LetterId, Selection, StoredLetter
from schemas.errors import LogUnavailable
from schemas.records import labels_of
from schemas.topics import DEAD_LETTER

_TIMEOUT_S = 30.0
_POLL_MS = 500
_MAX_REASONS = 10_000
_MAX_TIME_DIGITS = 19

_Key = tuple[LetterId, int]
"""A record that was set aside: where it is, and its append time."""


class KafkaDeadLetterReader:
    """schemas.dead_letters.DeadLetterReader of a cluster. Topics are named as on Kafka, with their prefix."""

    def __init__(
        self, bootstrap: Sequence[str], prefix: str, security: KafkaSecuritySettings = PLAINTEXT
    ) -> None:
        """``prefix``: of the dead letters' topic."""
        self._bootstrap = list(bootstrap)
        self._topic = prefix + DEAD_LETTER
        self._security = security

    async def find(self, selection: Selection, *, payloads: bool = False) -> Found:
        """See schemas.dead_letters.DeadLetterReader.find."""
        replayed: dict[_Key, str] = {}
        async for message in self._messages():
            key, headers = _key(message), dict(message.headers)
            if key is not None and "replayed" in headers:
                replayed[key] = _text(headers["replayed"])
        seen: set[int] = set()
        reasons: Counter[str] = Counter()
        letters: list[StoredLetter] = []
        total = 0
        async for message in self._messages():
            letter = _letter(message, payloads)
            if letter is None or not selection.has(letter.id, letter.reason):
                continue
            how = replayed.get((letter.id, letter.append_time_ns), "")
            identity = hash((letter.id, letter.append_time_ns, letter.reason))
            if identity in seen or (selection.replayed is not None and selection.replayed != bool(how)):
                continue
            seen.add(identity)
            total += 1
            if letter.reason in reasons or len(reasons) < _MAX_REASONS:
                reasons[letter.reason] += 1
            letters.append(replace(letter, replayed=how))
            if len(letters) > 2 * selection.limit:
                letters = _newest(letters, selection.limit)
        return Found(_newest(letters, selection.limit), total, reasons.most_common(REASONS))

    async def mark_replayed(self, letters: Sequence[StoredLetter], note: str) -> None:
        """See schemas.dead_letters.DeadLetterReader.mark_replayed."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap, acks="all", **self._security.client_options()
        )
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await producer.start()
                for letter in letters:
                    headers = [
                        *zip(
                            ("topic", "partition", "offset"),
                            (str(part).encode() for part in letter.id),
                            strict=True,
                        ),
                        ("time_ns", str(letter.append_time_ns).encode()),
                        ("replayed", note.encode()),
                    ]
                    await producer.send_and_wait(
                        self._topic, b"", key=str(letter.id).encode(), headers=headers
                    )
        except (KafkaError, TimeoutError) as error:
            raise self._away(error) from error
        finally:
            await producer.stop()

    async def close(self) -> None:
        """See schemas.dead_letters.DeadLetterReader.close; connections last for one call each."""

    async def _messages(self) -> AsyncIterator[Any]:
        """Every record of the topic up to its end now, none without a topic. Raises LogUnavailable."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            **self._security.client_options(),
        )
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                tps = [KafkaPartition(self._topic, number) for number in await self._partitions()]
                await consumer.start()
                ends = await consumer.end_offsets(tps) if tps else {}
            if not tps:
                return
            consumer.assign(tps)
            await consumer.seek_to_beginning(*tps)
            left = set(tps)
            while left := {tp for tp in left if await _position(consumer, tp) < ends[tp]}:
                async with asyncio.timeout(_TIMEOUT_S):
                    while not (batch := await consumer.getmany(*left, timeout_ms=_POLL_MS)):
                        if not {tp for tp in left if await _position(consumer, tp) < ends[tp]}:
                            break
                for messages in batch.values():
                    for message in messages:
                        yield message
        except (KafkaError, TimeoutError) as error:
            raise self._away(error) from error
        finally:
            await stop_consumer(consumer)

    async def _partitions(self) -> list[int]:
        """Of the topic; none where there is no topic."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap, **self._security.client_options())
        try:
            await admin.start()
            if self._topic not in await admin.list_topics():
                return []
            (described,) = await admin.describe_topics([self._topic])
            return sorted(partition["partition"] for partition in described["partitions"])
        finally:
            await admin.close()

    def _away(self, error: Exception) -> LogUnavailable:
        return LogUnavailable(
            f"dead letters in {self._topic} on Kafka at {','.join(self._bootstrap)} cannot be read or marked:"
            f" {error!r}"
        )


async def _position(consumer: AIOKafkaConsumer, tp: KafkaPartition) -> int:
    async with asyncio.timeout(_TIMEOUT_S):
        return int(await consumer.position(tp))


def _key(message: Any) -> _Key | None:
    """The record that a message is about; None for a message that is not meshflow's."""
    headers = dict(message.headers)
    time_ns = _text(headers.get("time_ns"))
    try:
        id_ = LetterId.parse(_text(message.key))
    except ValueError:
        return None
    if not (time_ns.isascii() and time_ns.isdigit() and len(time_ns) <= _MAX_TIME_DIGITS):
        return None
    return id_, int(time_ns)


def _letter(message: Any, payload: bool) -> StoredLetter | None:
    key, headers = _key(message), dict(message.headers)
    if key is None or "reason" not in headers:
        return None
    size = _text(headers.get("size"))
    return StoredLetter(
        *key,
        int(size) if size.isascii() and size.isdigit() and len(size) <= _MAX_TIME_DIGITS else 0,
        _text(headers["reason"]),
        _text(headers.get("payload")) or LEFT_OUT,
        (message.value or b"") if payload else b"",
        headers.get("key") or b"",
        labels_of(message.headers),
    )


def _newest(letters: list[StoredLetter], limit: int) -> list[StoredLetter]:
    return sorted(letters, key=lambda letter: letter.append_time_ns)[-limit:]


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")
