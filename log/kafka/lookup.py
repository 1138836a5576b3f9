"""Which records are in Kafka already, of those that somebody tried to append and got no answer for."""

import asyncio
from collections.abc import Collection, Mapping, Sequence

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaTimeoutError

from log.kafka.consumer import stop_consumer
from log.kafka.security import KafkaSecuritySettings

ID = "id"
"""Header of every record that a spool may have to look for; no other record of any writer has the same."""

_POLL_MS = 500


async def find(
    bootstrap: Sequence[str],
    security: KafkaSecuritySettings,
    wanted: Mapping[KafkaPartition, tuple[int, Collection[bytes]]],
    timeout_s: float,
) -> set[bytes]:
    """Of the ids that are wanted in each partition, those of its records from an offset on, up to its end
    now.

    Raises KafkaError (KafkaTimeoutError when brokers are silent for ``timeout_s``).
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=list(bootstrap),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        **security.client_options(),
    )
    found: set[bytes] = set()
    try:
        async with asyncio.timeout(timeout_s):
            await consumer.start()
            tps = list(wanted)
            consumer.assign(tps)
            begins, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        for tp, (since, _) in wanted.items():
            consumer.seek(tp, max(since, begins[tp]))
        await _read(consumer, wanted, ends, timeout_s, found)
    except TimeoutError as error:
        raise KafkaTimeoutError(f"Kafka did not answer within {timeout_s:g} s") from error
    finally:
        await stop_consumer(consumer)
    return found


async def _read(
    consumer: AIOKafkaConsumer,
    wanted: Mapping[KafkaPartition, tuple[int, Collection[bytes]]],
    ends: Mapping[KafkaPartition, int],
    timeout_s: float,
    found: set[bytes],
) -> None:
    loop = asyncio.get_running_loop()
    silent_since_s = loop.time()
    left = set(wanted)
    while left:
        for tp, records in (await consumer.getmany(*left, timeout_ms=_POLL_MS)).items():
            silent_since_s = loop.time()
            ids = wanted[tp][1]
            found |= {
                value for record in records for name, value in record.headers if name == ID and value in ids
            }
        left = {tp for tp in left if await consumer.position(tp) < ends[tp]}
        if loop.time() - silent_since_s > timeout_s:
            raise TimeoutError
