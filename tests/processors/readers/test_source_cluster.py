"""A record's label ``source_cluster`` is the cluster of resources that name none: for every signal, by both
readers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)

from log.sqlite.reader import SqliteLogReader
from log.sqlite.retention import Limits
from log.sqlite.writer import SqliteLogWriter
from processors.readers.in_process import Consumer
from processors.settings import ProcessorSettings
from schemas.records import Append, TopicPartition
from schemas.tables import Block
from schemas.topics import LOGS, METRICS, SPANS
from schemas.units import NS_PER_S
from tests.support.kafka.broker import Cluster
from tests.support.kafka.core import Store, by_token, make_processor
from tests.support.kafka.place import KafkaPlace
from tests.support.kafka.workers import TOPICS, Worker, eventually, ticks
from tests.support.span_log import T0_S, Span, payload

TIME_NS = T0_S * NS_PER_S
CLUSTERS = ("east", "west", "")
LONG_S = 60.0

Reading = Callable[[Sequence[Append]], Awaitable[Store]]
"""Appends, and reads to the end by a worker."""


def requests(topic: str) -> list[bytes]:
    """One for each of CLUSTERS: equal ones, but for the ids of spans."""
    if topic == SPANS:
        return [payload([Span("shop", number + 1)]) for number in range(len(CLUSTERS))]
    if topic == LOGS:
        record = LogRecord(time_unix_nano=TIME_NS, severity_text="INFO")
        logs = LogsData(resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=[record])])])
        return [logs.SerializeToString()] * len(CLUSTERS)
    total = Sum(
        data_points=[NumberDataPoint(time_unix_nano=TIME_NS, as_int=1)],
        aggregation_temporality=2,  # type: ignore[arg-type]  # an enum's number
        is_monotonic=True,
    )
    metrics = MetricsData(
        resource_metrics=[
            ResourceMetrics(scope_metrics=[ScopeMetrics(metrics=[Metric(name="m", sum=total)])])
        ]
    )
    return [metrics.SerializeToString()] * len(CLUSTERS)


def appends(topic: str) -> list[Append]:
    return [
        Append(TopicPartition(topic, 0), request, labels={"source_cluster": cluster} if cluster else {})
        for request, cluster in zip(requests(topic), CLUSTERS, strict=True)
    ]


async def in_process(folder: Path, given: Sequence[Append]) -> Store:
    now_ns = [TIME_NS]
    keep_all = Limits(timedelta(days=365_000), 1 << 40)
    writer = SqliteLogWriter(
        folder, {given[0].tp.topic: 1}, keep_all, clock_ns=lambda: now_ns[0], monotonic_ns=lambda: 0
    )
    await writer.append(given)
    for _ in range(2):  # the second one confirms how late it is
        now_ns[0] += 100 * NS_PER_S
        await writer.append([Append(given[0].tp, b"")])
    await writer.close()
    store, reader = Store(), SqliteLogReader(folder)
    settings = ProcessorSettings(partitions=1)
    consumer = Consumer(reader, store, poll_s=0.01)
    await consumer.open(lambda tp, commit: make_processor(settings, tp, commit))
    running = asyncio.create_task(consumer.run())
    async with asyncio.timeout(LONG_S):
        while store.sum("received") < len(given):  # noqa: ASYNC110 - another thread stores
            await asyncio.sleep(0.01)
    consumer.stop()
    await running
    await reader.close()
    return store


async def on_kafka(broker: Cluster, given: Sequence[Append]) -> Store:
    place, store = KafkaPlace(broker), Store()
    writer = await place.open_writer(TOPICS)
    await writer.append(given)
    worker = Worker(place, store)
    async with ticks(writer):
        await eventually(lambda: store.sum("received") == len(given), "all is processed", worker)
    await writer.close()
    assert await worker.stop()
    return store


@pytest.fixture(
    params=[
        "in process",
        pytest.param("faust", marks=[pytest.mark.component("kafka"), pytest.mark.timeout(900)]),
    ]
)
def reading(request: pytest.FixtureRequest, tmp_path: Path) -> Reading:
    if request.param == "in process":
        return lambda given: in_process(tmp_path, given)
    request.getfixturevalue("no_worker_left")
    broker: Cluster = request.getfixturevalue("broker")
    return lambda given: on_kafka(broker, given)


def tables(store: Store, name: str) -> list[Block]:
    return [block for block in by_token(store.blocks).values() if block.table == name]


async def test_spans_count_for_the_cluster_of_their_record(reading: Reading) -> None:
    store = await reading(appends(SPANS))
    clusters = [
        cluster for block in tables(store, "red_10s") for cluster in block.rows["cluster"].to_pylist()
    ]
    assert sorted(clusters) == sorted(CLUSTERS)


@pytest.mark.parametrize("topic", [METRICS, LOGS])
async def test_equal_items_of_two_clusters_are_no_copies(reading: Reading, topic: str) -> None:
    store = await reading(appends(topic))
    assert (store.sum("stored"), store.sum("duplicate")) == (len(CLUSTERS), 0)


@pytest.mark.parametrize("topic", [METRICS, LOGS])
async def test_equal_items_of_one_cluster_are_copies(reading: Reading, topic: str) -> None:
    """So the test above fails where the label does not arrive."""
    west = [append for append in appends(topic) if append.labels.get("source_cluster") == "west"]
    store = await reading(west * 2)
    assert (store.sum("stored"), store.sum("duplicate")) == (1, 1)
