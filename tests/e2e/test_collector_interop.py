"""A real OpenTelemetry Collector on either side of the log: it writes what meshflow processes, and reads what
meshflow wrote.
"""

import asyncio
import re
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from benchmarks.load import EXPORT, make_requests
from meshflow.tools.capture import read_captures
from processors.readers.partition import watermark_of
from schemas.otlp import split
from schemas.records import Record, TopicPartition
from schemas.topics import LOGS, METRICS, SPANS
from tests.e2e.test_e2e_capture import (
    CAPTURE,
    CAPTURED_CALLS,
    CAPTURED_LOGS,
    CAPTURED_POINTS,
    CAPTURED_SPANS,
    CAPTURED_UNSENT,
)
from tests.e2e.test_kafka_e2e import CALLS_UNSENT_LEDGER, facts, metrics
from tests.support.collector.build import build
from tests.support.collector.running import OTLP, Collector, kafka_exporter, kafka_receiver, pipelines
from tests.support.kafka.broker import Cluster
from tests.support.kafka.fleet import PANE, Command, ingest, worker
from tests.support.kafka.place import KafkaPlace
from tests.support.mesh.record import Recorder, running_recorder
from tests.support.up import eventually, run_meshflow

pytestmark = [
    pytest.mark.component("kafka"),
    pytest.mark.component("collector"),
    pytest.mark.timeout(2400),
]  # it may have to be built

LONG_S = 600.0
"""A worker stores a dozen panes a second here: on a machine that others use too it falls far behind, and
comes back.
"""
FILES = [str(CAPTURE.with_name(f"{name}.bin.gz")) for name in ("traces", "logs", "metrics")]
CAPTURED = {SPANS: CAPTURED_SPANS, LOGS: CAPTURED_LOGS, METRICS: CAPTURED_POINTS}


@pytest.fixture(scope="module", autouse=True)
def built() -> Path:
    return build()


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(running: ExitStack, command: Command, says: str) -> str:
    """Start a process that is killed in the end; what it says of itself when it is ready."""
    command.launch()
    running.callback(lambda: command.stop(signal.SIGKILL))
    return command.wait_for(says)


def repartition(folder: Path, log_url: str, source_prefix: str) -> Command:
    options = ("--source-prefix", source_prefix, "--metrics-port", "0", *PANE)
    return Command(folder, "repartition", log_url, "repartition", *options)


async def all_is_decided(place: KafkaPlace) -> None:
    """Wait until the workers' group has stored everything that is in the log, down to its last record that is
    not a tick.
    """
    reader = await place.open_reader("meshflow")
    try:
        for tp in await reader.partitions():
            records = await reader.read(tp, await reader.beginning(tp), 1 << 40)
            newest_ns = max((record.append_time_ns for record in records if record.size), default=0)
            end_s = time.monotonic() + LONG_S
            while newest_ns and (
                watermark_of(commit := await reader.committed(tp)).stored_until_ns <= newest_ns
            ):
                assert time.monotonic() < end_s, (
                    f"{tp}: a record of {newest_ns}, and no more than {commit} is committed"
                )
                await asyncio.sleep(0.2)
    finally:
        await reader.close()


def assert_stored_as_envoy_counted(folder: Path) -> None:
    stored = facts(folder, *CALLS_UNSENT_LEDGER)
    assert {fact[1:]: n for fact, n in stored.items() if fact[0] == "calls"} == CAPTURED_CALLS
    assert {fact[1:]: n for fact, n in stored.items() if fact[0] == "unsent"} == CAPTURED_UNSENT
    for topic, items in CAPTURED.items():
        assert stored["ledger", topic, "received"] == stored["ledger", topic, "kept or dropped"] == items
        assert stored["ledger", topic, "anything else"] == 0


def test_what_a_collector_writes_by_trace_id_is_processed(
    broker: Cluster, tmp_path: Path, running: ExitStack
) -> None:
    place = KafkaPlace(broker)
    start(
        running, ingest(tmp_path, place.url), "(is ready)"
    )  # it receives nothing: it makes the topics, and its ticks close panes
    consumer = worker(tmp_path, place.url)
    start(running, consumer, "(is running)")
    by_key = {
        "partition_traces_by_id": True,
        "partition_logs_by_trace_id": True,
        "partition_metrics_by_resource_attributes": True,
    }
    config = {
        "receivers": {"otlp": OTLP},
        "exporters": {"kafka": kafka_exporter(broker.bootstrap, place.prefix, **by_key)},
        "service": {"pipelines": pipelines("otlp", "kafka")},
    }
    with Collector(tmp_path, config) as collector:
        run_meshflow("replay", *FILES, "--target", collector.grpc, "--speed", "0")
        asyncio.run(all_is_in(place, CAPTURED))
        collector.end_whole()
    asyncio.run(all_is_decided(place))
    assert "meshflow_process_lag_records{" in metrics(consumer)
    assert consumer.stop() == 0, consumer.output()
    assert_stored_as_envoy_counted(tmp_path)


@pytest.fixture(scope="module")
def obliging_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """It makes topics for whoever writes to them, as brokers do unless configured otherwise."""
    settings = {"auto.create.topics.enable": "true", "num.partitions": "4"}
    with Cluster(tmp_path_factory.mktemp("obliging") / "broker", settings=settings) as cluster:
        yield cluster


def test_topics_that_a_collector_made_are_refused_until_the_brokers_stamp_them(
    obliging_broker: Cluster, tmp_path: Path, running: ExitStack
) -> None:
    place = KafkaPlace(obliging_broker)
    config = {
        "receivers": {"otlp": OTLP},
        "exporters": {
            "kafka": kafka_exporter(obliging_broker.bootstrap, place.prefix, partition_traces_by_id=True)
        },
        "service": {"pipelines": {"traces": pipelines("otlp", "kafka")["traces"]}},
    }
    with Collector(tmp_path, config) as collector:
        run_meshflow("replay", FILES[0], "--target", collector.grpc, "--speed", "0")
        asyncio.run(all_is_in(place, {SPANS: CAPTURED_SPANS}))
        collector.end_whole()
    consumer, receiver = worker(tmp_path, place.url), ingest(tmp_path, place.url)
    for command in (consumer, receiver):
        command.launch()
        assert command.process is not None
        assert command.process.wait(LONG_S) != 0
    assert "message.timestamp.type=CreateTime" in receiver.output()
    advice = re.search(r"kafka-configs\.sh (.*)", consumer.output())
    assert advice, consumer.output()

    obliging_broker.nodes[0].run_tool("kafka.admin.ConfigCommand", *advice[1].split())
    start(running, receiver, "(is ready)")
    start(running, consumer, "(is running)")
    asyncio.run(all_is_decided(place))
    assert consumer.stop() == 0, consumer.output()
    stored = facts(tmp_path, *CALLS_UNSENT_LEDGER)
    assert {fact[1:]: n for fact, n in stored.items() if fact[0] == "calls"} == CAPTURED_CALLS
    assert {fact[1:]: n for fact, n in stored.items() if fact[0] == "unsent"} == CAPTURED_UNSENT


def test_what_a_collector_writes_anywhere_is_processed_behind_repartition(
    obliging_broker: Cluster, tmp_path: Path, running: ExitStack
) -> None:
    """No keys, each request where the turn is; topics that the brokers made, stamped by the Collector."""
    place = KafkaPlace(obliging_broker)
    foreign = f"{place.prefix}collector."
    written = KafkaPlace(obliging_broker, prefix=foreign)
    config = {
        "receivers": {"otlp": OTLP},
        "exporters": {
            "kafka": kafka_exporter(
                obliging_broker.bootstrap, foreign, record_partitioner={"round_robin": {}}
            )
        },
        "service": {"pipelines": pipelines("otlp", "kafka")},
    }
    with Collector(tmp_path, config) as collector:
        run_meshflow("replay", *FILES, "--target", collector.grpc, "--speed", "0")
        asyncio.run(all_is_in(written, CAPTURED))
        collector.end_whole()
    start(running, repartition(tmp_path, place.url, foreign), "(is running)")
    asyncio.run(all_is_in(place, CAPTURED))
    consumer = worker(tmp_path, place.url)
    start(running, consumer, "(is running)")
    asyncio.run(all_is_decided(place))
    assert consumer.stop() == 0, consumer.output()
    assert_stored_as_envoy_counted(tmp_path)


async def all_is_in(place: KafkaPlace, wanted: Mapping[str, int]) -> None:
    """Wait until the topics hold so many spans (points, log records). Fails when they hold more, or when
    nothing comes for LONG_S.
    """
    reader = await place.open_reader("counting")
    found, offsets = Counter[str](), dict[TopicPartition, int]()
    end_s = time.monotonic() + LONG_S
    try:
        while found != Counter(wanted):
            before = found.total()
            for tp in await reader.partitions():
                for record in await reader.read(tp, offsets.get(tp, 0), 1 << 40):
                    found[tp.topic] += split(tp.topic, record.unpack(), 1).items
                    offsets[tp] = record.offset + 1
            if found.total() > before:
                end_s = time.monotonic() + LONG_S
            assert all(found[topic] <= items for topic, items in wanted.items()), (found, wanted)
            assert time.monotonic() < end_s, f"nothing came for {LONG_S} s: {found} of {wanted}"
            await asyncio.sleep(0.2)
    finally:
        await reader.close()


def test_a_collector_drops_what_it_would_send_again_when_it_is_ended(
    broker: Cluster, tmp_path: Path, running: ExitStack
) -> None:
    """Why the others wait before they end one, and that they would see it: this broker makes no topics, so
    that the request cannot be sent, as none can while a broker is making them.
    """
    exporter = kafka_exporter(broker.bootstrap, KafkaPlace(broker).prefix, timeout="1s")
    config = {
        "receivers": {"otlp": OTLP},
        "exporters": {"kafka": exporter},
        "service": {"pipelines": {"traces": pipelines("otlp", "kafka")["traces"]}},
    }
    with Collector(tmp_path, config) as collector:
        with grpc.insecure_channel(collector.grpc) as channel:
            channel.unary_unary(EXPORT)(make_requests(5, 1, 5, 5, seed=1)[0])
        eventually(lambda: "Will retry" in collector.output(), "the request is to be sent again", LONG_S)
        with pytest.raises(AssertionError, match="the Collector dropped data"):
            collector.end_whole()


REQUESTS: dict[str, Any] = {
    "traces": ExportTraceServiceRequest,
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
}
INNER = {
    "traces": ("resource_spans", "scope_spans", "spans"),
    "logs": ("resource_logs", "scope_logs", "log_records"),
    "metrics": ("resource_metrics", "scope_metrics", "metrics"),
}
SPAN_WITHOUT_ID = ExportTraceServiceRequest(
    resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=[Span(name="no ids")])])]
)


def items(name: str, requests: Iterable[Any]) -> Counter[tuple[bytes, ...]]:
    """Each span (log record, metric) with its resource and scope, as bytes."""
    by_resource, by_scope, leaves = INNER[name]
    return Counter(
        tuple(whole(part) for part in (resource.resource, scope.scope, leaf))
        for request in requests
        for resource in getattr(request, by_resource)
        for scope in getattr(resource, by_scope)
        for leaf in getattr(scope, leaves)
    )


async def test_a_collector_reads_what_meshflow_wrote(
    broker: Cluster, tmp_path: Path, running: ExitStack
) -> None:
    """Ticks (records without a value) and counts in headers are in the topics too, before, between and
    after.
    """
    place = KafkaPlace(broker)
    target = await asyncio.to_thread(start, running, ingest(tmp_path, place.url), r"OTLP/gRPC +(\S+)")
    captures = zip(INNER, FILES, strict=True)
    sent = {
        name: items(name, (captured.message for captured in read_captures([Path(file)])))
        for name, file in captures
    }
    await ticks(place, 1)
    async with grpc.aio.insecure_channel(target) as channel:
        await channel.unary_unary(EXPORT)(SPAN_WITHOUT_ID.SerializeToString())
    async with running_recorder() as recorder:
        config = {
            "receivers": {"kafka": kafka_receiver(broker.bootstrap, place.prefix)},
            "exporters": {
                "otlp": {
                    "endpoint": f"127.0.0.1:{recorder.port}",
                    "tls": {"insecure": True},
                    "sending_queue": {"block_on_overflow": True},
                }
            },
            "service": {"pipelines": pipelines("kafka", "otlp")},
        }
        collector = Collector(tmp_path, config)
        await asyncio.to_thread(running.enter_context, collector)
        await asyncio.to_thread(run_meshflow, "replay", *FILES, "--target", target, "--speed", "0")
        await ticks(place, 2)
        end_s = time.monotonic() + LONG_S
        while received(recorder) != CAPTURED:
            assert time.monotonic() < end_s, (received(recorder), collector.output()[-3000:])
            await asyncio.sleep(0.2)
        await asyncio.to_thread(collector.end_whole)
    for name, expected in sent.items():
        assert recorded(recorder, name) == expected
    assert "unmarshal" not in collector.output(), collector.output()[-3000:]
    assert sum(record.headers.get("rejected", 0) for _, record in await records(place)) == 1


def whole(part: Any) -> bytes:
    """Its bytes; a status that says nothing is written out by some and left out by others."""
    if isinstance(part, Span) and not part.status.ByteSize():
        part.ClearField("status")
    return bytes(part.SerializeToString(deterministic=True))


def received(recorder: Recorder) -> dict[str, int]:
    """How many spans (points, log records) have come."""
    topics = zip(INNER, (SPANS, LOGS, METRICS), strict=True)
    return {
        topic: sum(split(topic, request, 1).items for request in recorder.requests[name])
        for name, topic in topics
    }


def recorded(recorder: Recorder, name: str) -> Counter[tuple[bytes, ...]]:
    return items(name, map(REQUESTS[name].FromString, recorder.requests[name]))


async def ticks(place: KafkaPlace, enough: int) -> None:
    """Wait until each partition has so many ticks."""
    end_s = time.monotonic() + LONG_S
    while (
        min(
            Counter(
                tp for tp, record in await records(place) if not record.size and not record.headers
            ).values(),
            default=0,
        )
        < enough
    ):
        assert time.monotonic() < end_s, f"no {enough} ticks in every partition"
        await asyncio.sleep(0.5)


async def records(place: KafkaPlace) -> list[tuple[TopicPartition, Record]]:
    """All there are."""
    reader = await place.open_reader("looking")
    try:
        return [
            (tp, record)
            for tp in await reader.partitions()
            for record in await reader.read(tp, await reader.beginning(tp), 1 << 40)
        ]
    finally:
        await reader.close()
