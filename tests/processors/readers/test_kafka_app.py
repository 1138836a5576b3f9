"""Faust workers on a real broker store what one undisturbed reading of the same log gives."""

import asyncio
from collections import Counter
from functools import partial

import pytest
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from prometheus_client import REGISTRY

from benchmarks.load import make_requests
from schemas import otlp
from schemas.errors import LogUnavailable, SinkRejected
from schemas.records import Append, Commit, TopicPartition
from schemas.topics import LOGS, METRICS, SPANS
from schemas.watermark import UNKNOWN
from tests.support.kafka.broker import Cluster
from tests.support.kafka.core import Store
from tests.support.kafka.place import KafkaPlace
from tests.support.kafka.workers import (
    PARTITIONS,
    SETTINGS,
    TOPICS,
    Load,
    Worker,
    assert_as_undisturbed,
    eventually,
    ticks,
)

pytestmark = [
    pytest.mark.component("kafka"),
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("no_worker_left"),
]


async def one_knows_the_watermark(*workers: Worker) -> bool:
    return [await worker.app.watermark() != UNKNOWN for worker in workers].count(True) == 1


async def test_workers_that_come_and_go_store_what_one_reading_gives(broker: Cluster) -> None:
    place, store = KafkaPlace(broker), Store()
    async with Load(place) as load:
        first = Worker(place, store)
        await eventually(lambda: len(store.blocks) > 20, "the first worker stores", first)
        second = Worker(place, store)
        await eventually(
            lambda: len(second.app.partitions) > 0, "the second worker has partitions", first, second
        )
        assert {each.tp for each in first.app.partitions}.isdisjoint(
            each.tp for each in second.app.partitions
        )
        await eventually(
            partial(one_knows_the_watermark, first, second), "one of the two rolls up", first, second
        )
        await asyncio.sleep(1)
        assert await first.stop()
        await eventually(
            lambda: len(second.app.partitions) == len(TOPICS) * PARTITIONS,
            "the second worker has all",
            second,
        )
        await asyncio.sleep(1)
    await assert_as_undisturbed(place, store, second)
    assert store.sum("received") == load.sent == store.sum("kept") + store.sum("dropped")
    assert await second.stop()


async def test_a_worker_begins_where_the_last_one_ended_and_decides_nothing_twice(broker: Cluster) -> None:
    place, store = KafkaPlace(broker), Store()
    async with Load(place):
        first = Worker(place, store)
        await eventually(lambda: len(store.blocks) > 20, "the first worker stores", first)
        assert await first.stop()
        before = len(store.blocks)
        second = Worker(place, store)
        await eventually(lambda: len(store.blocks) > before + 20, "the second worker stores", second)
    await assert_as_undisturbed(place, store, second)
    assert await second.stop()
    repeated = Counter(block.token for block in store.blocks) - Counter(
        {block.token for block in store.blocks}
    )
    assert not repeated


async def test_partitions_that_stay_over_a_join_read_no_lookback_again(broker: Cluster) -> None:
    place, store = KafkaPlace(broker), Store()
    async with Load(place) as load:
        first = Worker(place, store)
        await eventually(lambda: len(store.blocks) > 20, "the first worker stores", first)
        assert len(first.made) == len(TOPICS) * PARTITIONS
        second = Worker(place, store)
        await eventually(
            lambda: len(second.app.partitions) > 0 and len(first.app.partitions) > 0,
            "both have partitions",
            first,
            second,
        )
        stay = {partition.tp for partition in first.app.partitions}
        before = len(store.blocks)
        await eventually(lambda: len(store.blocks) > before + 20, "both store", first, second)
        assert {tp: first.made.count(tp) for tp in stay} == dict.fromkeys(stay, 1)
        assert await second.stop()
        await eventually(
            lambda: len(first.app.partitions) == len(TOPICS) * PARTITIONS, "all come back", first
        )
        assert {tp: first.made.count(tp) for tp in stay} == dict.fromkeys(stay, 1)
    await assert_as_undisturbed(place, store, first)
    assert store.sum("received") == load.sent
    assert await first.stop()


async def test_what_retention_removed_is_counted_as_lost(broker: Cluster) -> None:
    place, store = KafkaPlace(broker), Store()
    writer = await place.open_writer(TOPICS)
    tp = TopicPartition(SPANS, 0)
    part = next(
        parts.parts[0]
        for request in make_requests(1_000, 2, 2, 20, seed=3)
        if 0 in (parts := otlp.split(SPANS, request, PARTITIONS)).parts
    )
    for _ in range(10):
        await writer.append([Append(tp, part)])
    reader = await place.open_reader("meshflow")
    clock = f"pane_ns={SETTINGS.pane_ns} shift_ns=0"
    await reader.commit(tp, Commit(2, f"next=1 from=4 closed=4 {clock}"))
    await reader.close()
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    await admin.delete_records({KafkaPartition(place.prefix + SPANS, 0): RecordsToDelete(before_offset=7)})
    await admin.close()
    worker = Worker(place, store)
    async with ticks(writer):
        left = 3 * otlp.split(SPANS, part, 1).items
        await eventually(
            lambda: store.sum("lost") > 0 and store.sum("received") == left, "the ledger has them", worker
        )
        assert store.sum("lost") == 3, "offsets 4 to 6: 2 and 3 were emitted before"
    await writer.close()
    assert await worker.stop()


async def test_a_poison_record_is_set_aside_and_reading_goes_on(broker: Cluster) -> None:
    place, store = KafkaPlace(broker), Store()
    writer = await place.open_writer(TOPICS)
    for topic in (SPANS, LOGS, METRICS):
        await writer.append([Append(TopicPartition(topic, 1), b"\xff\xff not OTLP", {"refused": 2})])
    worker = Worker(place, store)
    async with ticks(writer):
        await eventually(lambda: store.sum("rejected") == 3, "the ledger has them", worker)
        assert store.sum("refused") == 6
        assert {(tp, letter.offset) for tp, letter in worker.letters} == {
            (TopicPartition(topic, 1), 0) for topic in TOPICS
        }
    await writer.close()
    assert await worker.stop()


async def test_what_the_database_refuses_for_good_ends_the_worker(broker: Cluster) -> None:
    place, store = KafkaPlace(broker), Store()

    def lag() -> float | None:
        return REGISTRY.get_sample_value("meshflow_process_lag_records", {"topic": SPANS, "partition": "0"})

    async with Load(place):
        worker = Worker(place, store)
        await eventually(lambda: lag() is not None and len(store.blocks) > 5, "the worker stores", worker)
        store.fault = SinkRejected("not a block")
        with pytest.raises(SinkRejected):
            await asyncio.wait_for(worker.running, 120)
    assert worker.app.partitions == []
    assert lag() is None, "it has no partition any more"


async def test_a_broker_that_comes_back_finds_the_worker_going_on(broker: Cluster) -> None:
    place, store = KafkaPlace(broker), Store()
    async with Load(place):
        worker = Worker(place, store)
        await eventually(lambda: len(store.blocks) > 10, "the worker stores", worker)
        await asyncio.to_thread(broker.nodes[0].stop)
        await asyncio.sleep(1)
        await broker.nodes[0].start_beside()
        before = len(store.blocks)
        await eventually(lambda: len(store.blocks) > before + 20, "the worker goes on", worker)
    await assert_as_undisturbed(place, store, worker)
    assert await worker.stop()


async def test_a_commit_beyond_the_end_is_reported(broker: Cluster) -> None:
    place, store = KafkaPlace(broker), Store()
    await (await place.open_writer(TOPICS)).close()
    reader = await place.open_reader("meshflow")
    await reader.commit(TopicPartition(SPANS, 0), Commit(5, ""))
    await reader.close()
    with pytest.raises(LogUnavailable, match="was the topic made anew"):
        await asyncio.wait_for(Worker(place, store).running, 120)


async def test_no_broker_is_reported(broker: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("log.kafka.brokers._START_S", 0.5)
    nowhere = KafkaPlace(Cluster(broker.nodes[0].folder / "nowhere"))
    with pytest.raises(LogUnavailable, match="does not answer"):
        await asyncio.wait_for(Worker(nowhere, Store()).running, 120)


async def test_a_worker_waits_for_topics_and_checks_them(broker: Cluster) -> None:
    place, store = KafkaPlace(broker), Store()
    worker = Worker(place, store)
    await asyncio.sleep(0.5)
    assert not worker.running.done()
    await (await place.open_writer({SPANS: 3})).close()
    with pytest.raises(LogUnavailable, match=r"has 3 partitions, processing\.partitions says 2"):
        await asyncio.wait_for(worker.running, 120)
    idle = Worker(KafkaPlace(broker), store)
    assert await idle.stop()
