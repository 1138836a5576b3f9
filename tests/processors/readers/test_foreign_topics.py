"""Topics as meshflow would not write them: transactions, records that are gone, giant ones, spans without
ids, other clocks.
"""

import asyncio
import random

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.admin.records_to_delete import RecordsToDelete
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from benchmarks.load import make_requests
from processors.settings import ProcessorSettings
from schemas import otlp
from schemas.errors import LogUnavailable
from schemas.records import Append, TopicPartition
from schemas.topics import LOGS, METRICS, SPANS
from tests.support.kafka.broker import Cluster
from tests.support.kafka.core import HeldStore, Store
from tests.support.kafka.place import KafkaPlace
from tests.support.kafka.workers import PARTITIONS, SETTINGS, TOPICS, Worker, eventually, ticks

pytestmark = [
    pytest.mark.component("kafka"),
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("no_worker_left"),
]

TP = TopicPartition(SPANS, 0)


def part() -> bytes:
    """Some spans of partition 0."""
    for request in make_requests(1_000, 2, 2, 20, seed=3):
        parts = otlp.split(SPANS, request, PARTITIONS).parts
        if 0 in parts:
            return parts[0]
    pytest.fail("no trace falls into partition 0")


async def test_what_transactions_leave_between_records_is_no_loss(broker: Cluster) -> None:
    place, store = KafkaPlace(broker), Store()
    writer = await place.open_writer(TOPICS)
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id=place.prefix)
    await producer.start()
    same = part()
    ours = otlp.split(SPANS, same, 1).items
    for _ in range(20):
        async with producer.transaction():
            await producer.send_and_wait(place.prefix + SPANS, same, partition=0)
    await producer.stop()
    worker = Worker(
        place, store, ProcessorSettings.model_validate({**SETTINGS.model_dump(), "lookback": "2m"})
    )  # copies are known so long
    async with ticks(writer):
        await eventually(lambda: store.sum("received") == 20 * ours, "every record is read", worker)
        assert store.sum("lost") == 0
        assert store.sum("duplicate") == 19 * ours
    await writer.close()
    assert await worker.stop()


async def test_what_retention_removes_while_a_worker_is_behind_is_counted_as_lost(broker: Cluster) -> None:
    place, store = KafkaPlace(broker), HeldStore()
    writer = await place.open_writer(TOPICS)
    noise = TracesData()
    span = noise.resource_spans.add().scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=b"s" * 8)
    span.attributes.add(key="noise").value.bytes_value = random.Random(1).randbytes(1 << 20)
    await writer.append([Append(TP, part())])
    worker = Worker(place, store)
    async with ticks(writer):
        await eventually(store.waiting.is_set, "the worker waits for the store", worker)
        for _ in range(40):  # more than is fetched ahead
            await writer.append([Append(TP, noise.SerializeToString())])
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    reader = await place.open_reader("look")
    end = await reader.end(TP)
    there = [
        record.offset for record in await reader.read(TP, await reader.beginning(TP), 1 << 40) if record.size
    ]
    assert await reader.end(TP) == end
    beginning = there[-3]
    await admin.delete_records(
        {KafkaPartition(place.prefix + SPANS, 0): RecordsToDelete(before_offset=beginning)}
    )
    await admin.close()
    await reader.close()
    async with ticks(writer):
        store.go.set()
        await eventually(lambda: store.sum("lost") > 0, "what was not read is lost", worker)
        await eventually(lambda: read_to_the_end(worker, end), "the worker goes on", worker)
    await writer.close()
    assert await worker.stop()
    assert 0 < store.sum("lost") < end
    seen = (
        store.sum("duplicate") + store.sum("kept") + store.sum("dropped") - otlp.split(SPANS, part(), 1).items
    )
    assert 3 <= seen < 40, "the last three, and what was fetched before"
    assert seen + store.sum("lost") >= 40, "each is one or the other; ticks may be among the lost"


def read_to_the_end(worker: Worker, end: int) -> bool:
    """It may have no partition for a moment, in a rebalance."""
    return any(
        partition.tp == TP and partition.next_pane is not None and partition.next_offset > end + 4
        for partition in worker.app.partitions
    )


async def test_a_record_larger_than_what_is_fetched_at_a_time_is_read(broker: Cluster) -> None:
    place, store = KafkaPlace(broker), Store()
    writer = await place.open_writer(TOPICS)
    giant = TracesData()
    span = giant.resource_spans.add().scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=b"s" * 8)
    span.attributes.add(key="noise").value.bytes_value = random.Random(1).randbytes(6 << 20)
    await writer.append([Append(TP, part()), Append(TP, giant.SerializeToString()), Append(TP, part())])
    worker = Worker(place, store)
    async with ticks(writer):
        ours = otlp.split(SPANS, part(), 1).items
        await eventually(lambda: store.sum("received") == 2 * ours + 1, "the giant is read", worker)
        assert store.sum("rejected") == store.sum("lost") == 0
    await writer.close()
    assert await worker.stop()


async def test_what_has_no_ids_or_strange_headers_is_counted(broker: Cluster) -> None:
    place, store = KafkaPlace(broker), Store()
    writer = await place.open_writer(TOPICS)
    data = TracesData()
    for trace_id, span_id in (
        (b"t" * 16, b"s" * 8),
        (b"t" * 15, b"s" * 8),
        (bytes(16), b"s" * 8),
        (b"t" * 16, bytes(8)),
    ):
        data.resource_spans.add().scope_spans.add().spans.add(trace_id=trace_id, span_id=span_id)
    headers = [
        ("rejected", b"many"),
        ("refused", None),
        ("lost", b"9" * 5_000),
        ("refused", b"2"),
        ("traceparent", b"\xff"),
    ]
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap)
    await producer.start()
    await producer.send_and_wait(
        place.prefix + SPANS, data.SerializeToString(), key=b"\xff", partition=0, headers=headers
    )
    for topic in (SPANS, METRICS, LOGS):
        await producer.send_and_wait(place.prefix + topic, None, key=b"a tombstone", partition=0)
    await producer.stop()
    worker = Worker(place, store)
    async with ticks(writer):
        await eventually(lambda: store.sum("received") == 4, "the record is counted", worker)
        assert (store.sum("rejected"), store.sum("refused"), store.sum("lost")) == (3, 2, 0)
        assert worker.letters == []
    await writer.close()
    assert await worker.stop()


async def test_log_time_that_goes_back_holds_nothing_up(broker: Cluster) -> None:
    place, store = KafkaPlace(broker), Store()
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    await admin.create_topics(
        [
            NewTopic(
                place.prefix + SPANS,
                PARTITIONS,
                1,
                topic_configs={"message.timestamp.type": "CreateTime", "retention.ms": "-1"},
            )
        ]
    )
    with pytest.raises(LogUnavailable, match="stamped by its writers' clocks"):
        await asyncio.wait_for(Worker(place, store).running, 120)
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap)
    await producer.start()
    for time_ms in (1_700_000_000_000, 1_699_999_990_000, 1_700_000_000_100, 1, 1_700_000_010_000):
        await producer.send_and_wait(
            place.prefix + SPANS,
            part() if time_ms < 1_700_000_010_000 else b"",
            partition=0,
            timestamp_ms=time_ms,
        )
    await producer.stop()
    by_brokers = {"message.timestamp.type": "LogAppendTime", "retention.ms": "-1"}
    await admin.alter_configs(
        [ConfigResource(ConfigResourceType.TOPIC, place.prefix + SPANS, configs=by_brokers)]
    )
    await admin.close()
    worker = Worker(place, store)
    ours = otlp.split(SPANS, part(), 1).items
    await eventually(
        lambda: store.sum("received") == 4 * ours, "all four are of one pane or the next", worker
    )
    assert {
        row for block in store.blocks if block.table == "ledger" for row in block.rows["time"].to_pylist()
    } == {1_700_000_000}
    assert await worker.stop()
