"""The log on Kafka: the contract of every log, on a real broker, and what is Kafka's own."""

import asyncio
import random
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData
from prometheus_client import REGISTRY

from benchmarks.load import make_requests
from log.kafka import dead_letters
from log.kafka.consumer import stop_consumer
from log.kafka.dead_letters import MAX_BYTES, DeadLetterWriter
from log.kafka.settings import KafkaWriterSettings
from log.kafka.writer import KafkaLogWriter
from schemas.errors import LogUnavailable
from schemas.records import Append, DeadLetter, Record
from schemas.topics import DEAD_LETTER, SPANS
from schemas.units import parse_duration
from tests.log.log_contract import ENOUGH, A, B, LogContract
from tests.support.kafka.broker import Cluster
from tests.support.kafka.place import KafkaPlace

pytestmark = [pytest.mark.component("kafka"), pytest.mark.timeout(900)]

NOISE = random.Random(1).randbytes(2 << 20)


class TestKafkaLog(LogContract):
    @pytest.fixture
    def place(self, broker: Cluster) -> KafkaPlace:
        return KafkaPlace(broker)


async def test_a_gather_over_the_topics_limit_becomes_several_records(broker: Cluster) -> None:
    place = KafkaPlace(broker, KafkaWriterSettings(max_record=1 << 20))
    writer, reader = await place.open_writer(), await place.open_reader()
    gather = b"".join(make_requests(4_000, 5, 5, 100, seed=1))
    assert len(gather) > 3 << 20
    await writer.append([Append(A, gather, {"rejected": 3}), Append(A, b"")])
    records = await reader.read(A, 0, 1 << 30)
    assert len(records) > 3
    assert records[-1].size == 0
    assert [dict(record.headers) for record in records] == [{"rejected": 3}] + [{}] * (len(records) - 1)
    sent = TracesData.FromString(gather)
    logged = TracesData.FromString(b"".join(record.unpack() for record in records))
    assert _spans(logged) == _spans(sent)
    await writer.close()
    await reader.close()


def _all_spans(record: Record) -> list[Span]:
    resources = TracesData.FromString(record.unpack()).resource_spans
    return [span for resource in resources for scope in resource.scope_spans for span in scope.spans]


def _spans(data: TracesData) -> list[tuple[bytes, bytes, bytes]]:
    return [
        (resource.resource.SerializeToString(), scope.scope.SerializeToString(), span.SerializeToString())
        for resource in data.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


async def test_an_item_that_no_record_can_hold_is_counted(broker: Cluster) -> None:
    place = KafkaPlace(broker, KafkaWriterSettings(max_record=1 << 20))
    writer, reader = await place.open_writer(), await place.open_reader()
    data = TracesData()
    spans = data.resource_spans.add().scope_spans.add().spans
    for size in (10, 3 << 20, 20):
        spans.add().attributes.add(key="noise").value.bytes_value = random.Random(size).randbytes(size)
    await writer.append([Append(A, data.SerializeToString())])
    records = await reader.read(A, 0, 1 << 30)
    assert sum(record.headers.get("rejected", 0) for record in records) == 1
    assert len(_spans(TracesData.FromString(b"".join(record.unpack() for record in records)))) == 2
    await writer.close()
    await reader.close()


async def test_topics_that_do_not_fit_are_named(broker: Cluster) -> None:
    place = KafkaPlace(broker)
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    await admin.create_topics(
        [NewTopic(place.prefix + SPANS, 3, 1, topic_configs={"cleanup.policy": "compact"})]
    )
    await admin.close()
    with pytest.raises(LogUnavailable) as refused:
        await place.open_writer()
    assert "has 3 partitions, processing.partitions says 2" in str(refused.value)
    assert "meshflow needs LogAppendTime" in str(refused.value)
    assert "cleanup.policy=compact" in str(refused.value)


async def test_what_a_topic_puts_at_risk_is_logged(broker: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    await (await (place := KafkaPlace(broker)).open_writer()).close()
    await (await place.open_writer()).close()
    assert caplog.records == [], "topics as the settings say"
    await place.set_topic(SPANS, {"message.timestamp.type": "LogAppendTime", "retention.ms": "60000"})
    place.settings = KafkaWriterSettings(replication=2)
    await (await place.open_writer()).close()
    logged = [record.getMessage() for record in caplog.records if SPANS in record.getMessage()]
    assert logged == [
        f"topic {place.prefix}{SPANS} has retention.ms=60000, ingest.kafka.retention says 86400000:"
        " what is not processed within that time is lost",
        f"topic {place.prefix}{SPANS} has partitions of 1 copies, ingest.kafka.replication says 2",
        f"topic {place.prefix}{SPANS} has min.insync.replicas=1: what is acknowledged may be on one disk alone",
    ]
    caplog.clear()
    place.settings = KafkaWriterSettings()
    await place.set_topic(
        SPANS, {"message.timestamp.type": "LogAppendTime", "retention.ms": "-1", "min.insync.replicas": "2"}
    )
    await (await place.open_writer()).close()
    (risk,) = [record.getMessage() for record in caplog.records]
    assert (
        "min.insync.replicas=2 and partitions of 1 copies: nothing is taken while one broker is away" in risk
    )


async def test_several_writers_may_open_at_once_and_one_tick_is_enough(broker: Cluster) -> None:
    place = KafkaPlace(broker)
    writers = await asyncio.gather(*(place.open_writer() for _ in range(3)))
    reader = await place.open_reader()
    await asyncio.sleep(0.5)
    for writer in writers:
        await writer.tick(500_000_000)
    assert [record.size for record in await reader.read(A, 0, ENOUGH)] == [0]
    for writer in writers:
        await writer.close()
    await reader.close()


async def test_a_broker_that_is_away_is_reported_in_time_and_what_was_given_up_may_come_later(
    broker: Cluster,
) -> None:
    place = KafkaPlace(broker, KafkaWriterSettings(append_timeout=parse_duration("1s")))
    writer, reader = await place.open_writer(), await place.open_reader()
    since = writer.end(A)
    await _eventually_appended(writer, Append(A, b"before"), b"b" * 16, since)
    broker.nodes[0].pause()
    try:
        outcomes = await asyncio.gather(
            *(writer.append([Append(A, b"%d" % i * 20_000)]) for i in range(5)), return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {LogUnavailable}
        with pytest.raises(LogUnavailable):
            await writer.tick(0)
    finally:
        broker.nodes[0].resume()
    await _eventually_appended(writer, Append(A, b"after"), b"a" * 16, since)
    values = [record.unpack() for record in await reader.read(A, 0, ENOUGH)]
    assert values[0] == b"before"
    assert values[-1] == b"after"
    assert len(values) == len(set(values)), "nothing twice"
    await writer.close()
    await reader.close()


async def _eventually_appended(writer: KafkaLogWriter, append: Append, id_: bytes, since: int) -> None:
    """Once, though each attempt may time out on a busy machine."""
    for _ in range(60):
        try:
            await writer.settle()
            await writer.append([append], [id_], await writer.find([(append, id_, since)]))
        except LogUnavailable:
            continue
        return
    pytest.fail("the writer did not recover")


async def test_no_broker_at_all_is_reported(broker: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("log.kafka.topics.TIMEOUT_S", 1.0)
    nowhere = Cluster(broker.nodes[0].folder / "nowhere")
    with pytest.raises(LogUnavailable, match="does not answer"):
        await KafkaPlace(nowhere).open_writer()


DEAD = [
    (Record(7, 5, b"\xff" * 1_000, 1_000, key=b"a key"), "not OTLP"),
    (Record(8, 6, NOISE, len(NOISE)), "not OTLP"),
    (Record(9, 7, b"", 10_000), "too large"),
    (Record(10, 8, b"\0not packed", 10_000, codec="lz4"), "cannot be unpacked"),
]


async def test_dead_letters_name_the_record_and_the_reason_and_bring_what_is_in_it(broker: Cluster) -> None:
    place = KafkaPlace(broker)
    letters = DeadLetterWriter(broker.bootstrap.split(","), place.prefix)
    await letters.write(A, [DeadLetter(record, reason) for record, reason in DEAD])
    await letters.close()
    consumer = AIOKafkaConsumer(
        place.prefix + DEAD_LETTER, bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    whole, cut, left_out, refused = [await asyncio.wait_for(consumer.getone(), 120) for _ in DEAD]
    await stop_consumer(consumer)
    assert whole.key == f"{place.prefix}{SPANS}/0/7".encode()
    assert whole.value == b"\xff" * 1_000
    assert {name: value.decode() for name, value in whole.headers} == {
        "topic": place.prefix + SPANS,
        "partition": "0",
        "offset": "7",
        "time_ns": "5",
        "size": "1000",
        "key": "a key",
        "reason": "not OTLP",
        "payload": "whole",
    }
    assert (cut.value, dict(cut.headers)["payload"]) == (NOISE[:MAX_BYTES], b"cut")
    assert (left_out.value, dict(left_out.headers)["payload"]) == (b"", b"left out")
    assert (refused.value, dict(refused.headers)["payload"]) == (b"\0not packed", b"whole")


async def test_a_dead_letter_that_brokers_refuse_for_good_is_given_up(
    broker: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dead_letters, "_RETRY_S", 0.1)
    place = KafkaPlace(broker)
    letters = DeadLetterWriter(broker.bootstrap.split(","), place.prefix)
    first, second = (
        DeadLetter(Record(7, 5, b"\xff", 1, key=NOISE[:10_000]), "not OTLP"),
        DeadLetter(DEAD[2][0], "too large"),
    )
    await letters.write(A, [second])
    await place.set_topic(DEAD_LETTER, {"max.message.bytes": "1500"})
    before = (
        REGISTRY.get_sample_value("meshflow_process_dead_letters_given_up_total", {"topic": SPANS}) or 0.0
    )
    await asyncio.wait_for(letters.write(A, [first, second]), 120)
    await letters.close()
    assert (
        REGISTRY.get_sample_value("meshflow_process_dead_letters_given_up_total", {"topic": SPANS})
        == before + 1
    )
    assert f"the dead letter of {place.prefix}{SPANS}/0, offset 7, is given up" in caplog.text
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap)
    await consumer.start()
    tp = KafkaPartition(place.prefix + DEAD_LETTER, 0)
    assert await consumer.end_offsets([tp]) == {tp: 2}, "the other one is there, twice"
    await stop_consumer(consumer)


async def test_a_dead_letter_waits_for_what_can_pass_but_not_for_rights(
    broker: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "_RETRY_S", 0.01)
    writer, tries = DeadLetterWriter(broker.bootstrap.split(","), ""), []
    errors = iter([*[KafkaConnectionError("away")] * 9, *[TopicAuthorizationFailedError("no")] * 3])

    async def refused() -> Any:
        tries.append(error := next(errors))
        raise error

    monkeypatch.setattr(writer, "_connected", refused)
    await asyncio.wait_for(writer.write(A, [DeadLetter(DEAD[0][0], "not OTLP")]), 60)
    assert len(tries) == 12


async def test_records_that_have_ids_are_found_and_not_appended_twice(broker: Cluster) -> None:
    place = KafkaPlace(broker, KafkaWriterSettings(max_record=1 << 20))
    writer, reader = await place.open_writer(), await place.open_reader()
    large = Append(A, b"".join(make_requests(4_000, 5, 5, 100, seed=1)), {"rejected": 1})
    small, never = Append(B, b"small"), Append(A, b"never")
    ids = [bytes([number]) * 16 for number in range(3)]
    since = writer.ends()
    await writer.append([large, small], ids[:2])
    doubtful = [
        (append, id_, since[append.tp]) for append, id_ in zip([large, small, never], ids, strict=True)
    ]
    there = await writer.find(doubtful)
    pieces = await reader.end(A)
    assert (len(there), pieces > 3) == (pieces + 1, True)
    await writer.append([large, small, never], ids, there=there)
    records = await reader.read(A, 0, 1 << 30)
    assert [record.unpack() for record in records[pieces:]] == [b"never"]
    assert await reader.end(B) == 1
    some = sorted(there)[0]
    await writer.append([large], ids[:1], there=there - {some})
    assert await reader.end(A) == pieces + 2, "a piece that is missing comes alone"
    assert await writer.find([(never, ids[2], await reader.end(A))]) == set(), (
        "nothing before the offset is looked at"
    )
    await writer.close()
    await reader.close()


async def test_what_was_given_up_is_settled_before_it_is_looked_for(broker: Cluster) -> None:
    place = KafkaPlace(broker, KafkaWriterSettings(append_timeout=parse_duration("1s")))
    writer, reader = await place.open_writer(), await place.open_reader()
    append, id_, since = Append(A, b"doubtful"), b"d" * 16, writer.ends()[A]
    broker.nodes[0].pause()
    try:
        with pytest.raises(LogUnavailable):
            await writer.append([append], [id_])
        with pytest.raises(LogUnavailable):
            await writer.settle()
    finally:
        broker.nodes[0].resume()
    await _eventually_appended(writer, append, id_, since)
    await asyncio.sleep(1)  # for what should not come
    assert [record.unpack() for record in await reader.read(A, 0, ENOUGH)] == [b"doubtful"]
    await writer.close()
    await reader.close()


async def test_a_topic_that_takes_smaller_records_than_before_gets_smaller_ones(broker: Cluster) -> None:
    place = KafkaPlace(broker)
    writer, reader = await place.open_writer(), await place.open_reader()
    await place.set_topic(SPANS, {"max.message.bytes": "100000", "message.timestamp.type": "LogAppendTime"})
    data = TracesData()
    spans = data.resource_spans.add().scope_spans.add().spans
    for number in range(10):
        spans.add().attributes.add(key="noise").value.bytes_value = random.Random(number).randbytes(30_000)
    gather = data.SerializeToString()
    with pytest.raises(LogUnavailable, match="MessageSizeTooLarge"):
        await _append_often(writer, gather)  # until the broker has heard of it
    before = await reader.end(A)
    await writer.settle()
    await writer.append([Append(A, gather)], [b"x" * 16])
    records = await reader.read(A, before, 1 << 30)
    assert len(records) > 3
    assert _spans(TracesData.FromString(b"".join(record.unpack() for record in records))) == _spans(data)
    await writer.close()
    await reader.close()


async def _append_often(writer: KafkaLogWriter, value: bytes) -> None:
    for _ in range(300):
        await writer.append([Append(A, value)])
        await asyncio.sleep(0.1)
