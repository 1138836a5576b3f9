"""``repartition`` on a real broker: all that foreign topics hold comes into the log, split, and kill -9 loses
and doubles nothing.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.records_to_delete import RecordsToDelete
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from benchmarks.load import make_requests
from log.kafka.brokers import Brokers
from processors.repartition import Repartitioner
from processors.settings import ProcessorSettings
from schemas import otlp
from schemas.errors import LogUnavailable
from schemas.records import DeadLetter, TopicPartition
from schemas.topics import LOGS, METRICS, SPANS, TOPICS
from tests.support.kafka.broker import Cluster
from tests.support.kafka.core import undisturbed
from tests.support.kafka.fleet import Command
from tests.support.kafka.place import KafkaPlace
from tests.support.up import LONG_S

pytestmark = [pytest.mark.component("kafka"), pytest.mark.timeout(900)]

SOURCE_PARTITIONS = 3
PARTITIONS = 2
KILLS = 4


class Foreign:
    """Topics that somebody else writes, not split."""

    def __init__(self, place: KafkaPlace) -> None:
        self.place = place
        self.prefix = f"{place.prefix}foreign."

    async def __aenter__(self) -> "Foreign":
        admin = AIOKafkaAdminClient(bootstrap_servers=self.place.cluster.bootstrap)
        await admin.start()
        made = await admin.create_topics(
            [NewTopic(self.prefix + topic, SOURCE_PARTITIONS, 1) for topic in TOPICS]
        )
        assert [code for _, code, *_ in made.topic_errors] == [0, 0, 0]
        await admin.close()
        self.producer = AIOKafkaProducer(
            bootstrap_servers=self.place.cluster.bootstrap, acks="all", max_request_size=16 << 20
        )
        await self.producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.producer.stop()

    async def send(self, topic: str, value: bytes | None, partition: int = 0) -> None:
        await self.producer.send_and_wait(self.prefix + topic, value, key=b"a key", partition=partition)

    async def committed(self, group: str) -> dict[KafkaPartition, int]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.place.cluster.bootstrap)
        await admin.start()
        known = await admin.list_consumer_group_offsets(group)
        await admin.close()
        return {tp: meta.offset for tp, meta in known.items()}


class Splitter:
    """A repartitioner that runs in the test's loop."""

    def __init__(self, foreign: Foreign, settings: ProcessorSettings) -> None:
        self.letters: list[tuple[TopicPartition, DeadLetter]] = []
        self.stopped = asyncio.Event()
        self._foreign = foreign
        self._settings = settings

    async def __aenter__(self) -> "Splitter":
        place = self._foreign.place
        self._writer = await place.open_writer(dict.fromkeys(TOPICS, PARTITIONS))
        brokers = Brokers(tuple(place.cluster.bootstrap.split(",")))
        splitting = Repartitioner(
            brokers, place.prefix, self._settings, writer=self._writer, set_aside=self._set_aside
        )
        self.running = asyncio.create_task(splitting.serve(self.stopped))
        return self

    async def _set_aside(self, tp: TopicPartition, letters: Sequence[DeadLetter]) -> None:
        self.letters += [(tp, letter) for letter in letters]

    async def __aexit__(self, *_: object) -> None:
        self.stopped.set()
        assert await self.running
        await self._writer.close()


def settings(foreign: Foreign) -> ProcessorSettings:
    return ProcessorSettings.model_validate(
        {
            "partitions": PARTITIONS,
            "kafka": {"session_timeout": "10s", "commit_every": "100ms"},
            "repartition": {"source_prefix": foreign.prefix},
        }
    )


async def eventually(happened: Callable[[], Awaitable[bool]], what: str, limit_s: float = LONG_S) -> None:
    end_s = time.monotonic() + limit_s
    while not await happened():
        assert time.monotonic() < end_s, f"did not happen: {what}"
        await asyncio.sleep(0.2)


async def log_of(place: KafkaPlace) -> dict[TopicPartition, list[tuple[bytes, dict[str, int]]]]:
    """All that is in the log's partitions: payload and headers."""
    reader = await place.open_reader("look")
    log = {
        tp: [
            (record.unpack(), dict(record.headers))
            for record in await reader.read(tp, await reader.beginning(tp), 1 << 40)
        ]
        for tp in await reader.partitions()
    }
    await reader.close()
    return log


def spans(payload: bytes) -> Counter[bytes]:
    return Counter(
        resource.resource.SerializeToString() + span.SerializeToString()
        for resource in TracesData.FromString(payload).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    )


async def test_what_foreign_topics_hold_comes_into_the_log_split(broker: Cluster) -> None:
    place = KafkaPlace(broker)
    requests = make_requests(1_000, 5, 5, 20, seed=1)
    metrics, logs = MetricsData(), LogsData()
    metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="requests").gauge.data_points.add(
        as_int=3
    )
    logs.resource_logs.add().scope_logs.add().log_records.add(trace_id=b"t" * 16, event_name="a log")
    async with Foreign(place) as foreign:
        for number, request in enumerate(requests):
            await foreign.send(SPANS, request, number % SOURCE_PARTITIONS)
        await foreign.send(SPANS, b"\xff\xff not OTLP", 1)
        await foreign.send(SPANS, None, 2)  # a tombstone holds nothing
        await foreign.send(METRICS, metrics.SerializeToString())
        await foreign.send(LOGS, logs.SerializeToString())
        async with Splitter(foreign, settings(foreign)) as splitter:
            await eventually(lambda: all_there(place, 1_000), "all items are in the log")
        committed = await foreign.committed(place.prefix + "meshflow-repartition")
    log = await log_of(place)
    for tp in [TopicPartition(SPANS, number) for number in range(PARTITIONS)]:
        assert all(set(otlp.split(SPANS, value, PARTITIONS).parts) <= {tp.partition} for value, _ in log[tp])
    assert sum((spans(value) for tp in log for value, _ in log[tp] if tp.topic == SPANS), Counter()) == sum(
        map(spans, requests), Counter()
    )
    assert [value for tp in log for value, _ in log[tp] if tp.topic == METRICS] == [
        metrics.SerializeToString()
    ]
    assert [value for tp in log for value, _ in log[tp] if tp.topic == LOGS] == [logs.SerializeToString()]
    assert sum(headers.get("rejected", 0) for tp in log for _, headers in log[tp]) == 1
    ((at, letter),) = splitter.letters
    assert (at, letter.record.payload, letter.record.key) == (
        TopicPartition(SPANS, 1),
        b"\xff\xff not OTLP",
        b"a key",
    )
    ends = Counter(number % SOURCE_PARTITIONS for number in range(len(requests))) + Counter({1: 1, 2: 1})
    assert {number: committed[KafkaPartition(foreign.prefix + SPANS, number)] for number in ends} == dict(
        ends
    )


async def all_there(place: KafkaPlace, count: int) -> bool:
    log = await log_of(place)
    found = {
        topic: sum(len(value) > 0 for tp in log for value, _ in log[tp] if tp.topic == topic)
        for topic in (METRICS, LOGS)
    }
    return (
        min(found.values()) > 0
        and sum(otlp.split(SPANS, value, 1).items for tp in log for value, _ in log[tp] if tp.topic == SPANS)
        == count
    )


async def test_what_was_gone_before_it_was_read_is_reported(broker: Cluster) -> None:
    place = KafkaPlace(broker)
    async with Foreign(place) as foreign:
        for request in make_requests(200, 5, 5, 20, seed=1):
            await foreign.send(SPANS, request)
        async with Splitter(foreign, settings(foreign)):
            await eventually(lambda: spans_there(place, 200), "the first ones are in the log")
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
        await admin.start()
        for request in make_requests(200, 5, 5, 20, seed=2):
            await foreign.send(SPANS, request)
        await admin.delete_records(
            {KafkaPartition(foreign.prefix + SPANS, 0): RecordsToDelete(before_offset=13)}
        )
        await admin.close()
        async with Splitter(foreign, settings(foreign)):
            await eventually(lambda: spans_there(place, 340), "what is left is in the log")
    log = await log_of(place)
    assert sum(headers.get("lost", 0) for tp in log for _, headers in log[tp]) == 3


async def spans_there(place: KafkaPlace, count: int) -> bool:
    log = await log_of(place)
    return sum(otlp.split(SPANS, value, 1).items for tp in log for value, _ in log[tp]) == count


async def test_a_topic_is_not_read_and_written(broker: Cluster) -> None:
    place = KafkaPlace(broker)
    same = ProcessorSettings.model_validate(
        {"partitions": PARTITIONS, "repartition": {"source_prefix": place.prefix}}
    )
    writer = await place.open_writer(dict.fromkeys(TOPICS, PARTITIONS))
    with pytest.raises(LogUnavailable, match="would be read and written"):
        Repartitioner(Brokers((broker.bootstrap,)), place.prefix, same, writer=writer, set_aside=_drop)
    await writer.close()


async def _drop(tp: TopicPartition, letters: Sequence[DeadLetter]) -> None:
    """No letter comes here."""


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


CONFIG = """
[processing]
partitions = 2

[processing.kafka]
session_timeout = "5s"

[processing.repartition]
source_prefix = "{prefix}"
"""


async def test_kill_9_loses_and_doubles_nothing(broker: Cluster, tmp_path: Path, running: ExitStack) -> None:
    place, moments = KafkaPlace(broker), random.Random(3)
    async with Foreign(place) as foreign:
        config = CONFIG.format(prefix=foreign.prefix)
        command = Command(
            tmp_path,
            "repartition",
            place.url,
            "repartition",
            "--metrics-port",
            "0",
            "--pane",
            "1s",
            config=config,
        )
        command.launch()
        running.callback(command.kill)
        await asyncio.to_thread(command.wait_for, "(is running)")
        stop = asyncio.Event()
        sending = asyncio.create_task(send(foreign, stop))
        for _ in range(KILLS):
            before = await log_records(place)
            await eventually(partial(moved, place, before), "spans come into the log")
            await asyncio.sleep(moments.uniform(0, 1))
            await asyncio.to_thread(command.kill)
            command.launch()
            await asyncio.to_thread(command.wait_for, "(is running)")
        stop.set()
        sent = await sending
        # the lookback is longer than the next one may take to begin on a busy machine
        chosen = ProcessorSettings.model_validate({"partitions": PARTITIONS, "pane": "1s", "lookback": "10m"})
        await eventually(
            lambda: settled(place, chosen, sum(sent.values())),
            "all that was sent is decided, once",
            2 * LONG_S,
        )
        assert await asyncio.to_thread(command.stop) == 0, command.output()
    log = await log_of(place)
    found = sum((spans(value) for tp in log for value, _ in log[tp]), Counter())
    assert found.keys() == sent.keys()
    ledger = await ledger_of(place, chosen)
    assert ledger["kept"] + ledger["dropped"] == sent.total()
    assert ledger["received"] - ledger["duplicate"] == sent.total()
    assert ledger["lost"] == ledger["rejected"] == 0


async def send(foreign: Foreign, stop: asyncio.Event) -> Counter[bytes]:
    sent: Counter[bytes] = Counter()
    for number, request in enumerate(make_requests(100_000, 10, 5, 20, seed=7, spans_per_s=1_000)):
        if stop.is_set():
            break
        await foreign.send(SPANS, request, number % SOURCE_PARTITIONS)
        sent += spans(request)
        await asyncio.sleep(0.02)
    return sent


async def log_records(place: KafkaPlace) -> int:
    return sum(len(value) > 0 for records in (await log_of(place)).values() for value, _ in records)


async def moved(place: KafkaPlace, before: int) -> bool:
    return await log_records(place) > before


async def ledger_of(place: KafkaPlace, chosen: ProcessorSettings) -> Counter[str]:
    total: Counter[str] = Counter()
    for block in (await undisturbed(place, chosen)).blocks.values():
        if block.table == "ledger":
            total.update(
                {
                    name: sum(block.rows[name].to_pylist())
                    for name in ("received", "duplicate", "kept", "dropped", "lost", "rejected")
                }
            )
    return total


async def settled(place: KafkaPlace, chosen: ProcessorSettings, sent: int) -> bool:
    ledger = await ledger_of(place, chosen)
    return ledger["kept"] + ledger["dropped"] >= sent
