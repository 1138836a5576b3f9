"""What items share is in memory once, blocks are cut before it is repeated, and what is over a limit is
counted.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    Gauge,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from processors.cutting import BLOCK_BYTES
from processors.logs.signal import log_processor
from processors.points.signal import point_processor
from processors.readers.partition import Processor
from processors.settings import ProcessorSettings
from schemas import topics
from schemas.otlp.limits import CUT_KEY
from schemas.records import Record, TopicPartition
from schemas.tables import Block
from tests.support.span_log import KEEP_ALL, Span, make_log, process

SETTINGS = ProcessorSettings(partitions=1)
TIME = 1_700_000_000_000_000_000
MIB = 1 << 20
LABELS = {f"k8s.pod.label.team-{number}": f"value-of-label-{number}" for number in range(30)}


def attributes(pairs: dict[str, str]) -> list[KeyValue]:
    return [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in pairs.items()]


def logs(resource: dict[str, str], records: Sequence[LogRecord]) -> bytes:
    of_resource = ResourceLogs(
        resource=Resource(attributes=attributes(resource)), scope_logs=[ScopeLogs(log_records=records)]
    )
    return LogsData(resource_logs=[of_resource]).SerializeToString()


def points(resource: dict[str, str], count: int) -> bytes:
    data = [NumberDataPoint(time_unix_nano=TIME + number, as_int=number) for number in range(count)]
    of_resource = ResourceMetrics(
        resource=Resource(attributes=attributes(resource)),
        scope_metrics=[ScopeMetrics(metrics=[Metric(name="m", gauge=Gauge(data_points=data))])],
    )
    return MetricsData(resource_metrics=[of_resource]).SerializeToString()


def emitted(processor: Processor, *payloads: bytes) -> list[Block]:
    """The blocks of one pane, one after the other: nobody holds them all."""
    records = [Record(number, TIME, payload, len(payload)) for number, payload in enumerate(payloads)]
    (emit,) = processor.feed([*records, Record(len(records), TIME + 10**12, b"", 0)])
    return emit.blocks  # type: ignore[return-value]  # made when they are asked for


def one(topic: str) -> Processor:
    make = point_processor if topic == topics.METRICS else log_processor
    return make(TopicPartition(topic, 0), SETTINGS)


def measured(blocks: Any) -> tuple[int, int, int, dict[str, Any]]:
    """Rows of otel_* tables, their bytes, the most that Arrow held beside what was there, and the ledger."""
    before = pa.total_allocated_bytes()
    rows = total = most = 0
    ledger: dict[str, Any] = {}
    for block in blocks:
        most = max(most, pa.total_allocated_bytes() - before)
        if block.table == "ledger":
            (ledger,) = block.rows.to_pylist()
        else:
            assert block.rows.get_total_buffer_size() < 1.1 * BLOCK_BYTES
            rows += block.rows.num_rows
            total += block.rows.nbytes
        del block
    return rows, total, most, ledger


def test_ten_kib_of_resource_over_many_points_is_made_some_at_a_time() -> None:
    rows, total, most, ledger = measured(emitted(one(topics.METRICS), points({"big": "x" * 10_240}, 30_000)))
    assert rows == ledger["stored"] == 30_000
    assert total > 290 * MIB
    assert most < 3 * BLOCK_BYTES


def test_ordinary_labels_over_many_log_records_are_made_some_at_a_time() -> None:
    records = [LogRecord(time_unix_nano=TIME + number) for number in range(20_000)]
    payloads = [logs({**LABELS, "pod": f"pod-{number}"}, records) for number in range(10)]
    rows, total, most, ledger = measured(emitted(one(topics.LOGS), *payloads))
    assert rows == ledger["stored"] == 200_000
    assert total > 200 * MIB
    assert most < 3 * BLOCK_BYTES


def test_block_borders_are_a_function_of_the_batch() -> None:
    payload = points({"big": "x" * 20_000}, 10_000)
    first, second = (
        [(block.token, block.rows.num_rows) for block in emitted(one(topics.METRICS), payload)]
        for _ in range(2)
    )
    assert first == second
    assert len({token for token, _ in first}) == len(first) > 3


def test_a_value_over_the_limit_is_cut_marked_and_counted() -> None:
    long = LogRecord(time_unix_nano=TIME, attributes=attributes({"a": "x" * 100_000, "b": "c"}))
    blocks = emitted(one(topics.LOGS), logs({"r": "y" * 70_000}, [long, LogRecord(time_unix_nano=1)]))
    tables = {block.table: block.rows.to_pylist(maps_as_pydicts="strict") for block in blocks}
    whole, cut = sorted(tables["otel_logs"], key=lambda row: len(row["LogAttributes"]))
    assert cut["LogAttributes"] == {"a": "x" * 65_536, "b": "c", CUT_KEY: f"{100_000 - 65_536} bytes, 0 keys"}
    assert whole["LogAttributes"] == {}
    assert cut["ResourceAttributes"][CUT_KEY] == f"{70_000 - 65_536} bytes, 0 keys"
    assert tables["ledger"][0]["cut"] == 2


def test_a_spans_attributes_over_the_limit_are_cut_marked_and_counted() -> None:
    many = {f"key-{number}": "v" for number in range(1_200)}
    emits = process(make_log((0, [Span("a", 1, attributes=many)]), (60, [])), SETTINGS, KEEP_ALL)
    blocks = [block for emit in emits for block in emit.blocks]
    (row,) = next(block.rows for block in blocks if block.table == "otel_traces").to_pylist(
        maps_as_pydicts="strict"
    )
    assert len(row["SpanAttributes"]) == 1_001
    assert row["SpanAttributes"][CUT_KEY] == "0 bytes, 200 keys"
    assert sum(block.rows["cut"][0].as_py() for block in blocks if block.table == "ledger") == 1


def test_equal_records_of_two_clusters_are_no_copies() -> None:
    payload = logs({}, [LogRecord(time_unix_nano=TIME)])
    records = [
        Record(number, TIME, payload, len(payload), labels={"source_cluster": cluster})
        for number, cluster in enumerate(("east", "west", "east"))
    ]
    (emit,) = one(topics.LOGS).feed([*records, Record(3, TIME + 10**12, b"", 0)])
    *_, (ledger,) = (block.rows.to_pylist() for block in emit.blocks)
    assert (ledger["stored"], ledger["duplicate"]) == (2, 1)


@pytest.mark.parametrize("topic", [topics.METRICS, topics.LOGS])
def test_a_record_without_items_gives_no_rows(topic: str) -> None:
    empty = ResourceLogs(resource=Resource(attributes=attributes({"a": "b"})))
    payload = LogsData(resource_logs=[empty]).SerializeToString()
    assert {block.table for block in emitted(one(topic), payload)} == {"ledger"}
