"""Data points and log records: column by column, the real Envoy capture, copies, restarts."""

import gzip
import random
import struct
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_DELTA,
    Exemplar,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
    Summary,
    SummaryDataPoint,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from processors.cutting import cut
from processors.identities import SeenItems
from processors.logs.signal import log_processor
from processors.logs.store import log_rows
from processors.panes import Emit
from processors.points.signal import point_processor
from processors.points.store import point_rows
from processors.readers.partition import Processor
from processors.settings import MetricSettings, ProcessorSettings
from schemas import otlp, topics
from schemas.errors import MalformedOtlp
from schemas.records import Commit, Record, TopicPartition
from schemas.tables import SCHEMAS
from tests.support.examples import examples

CAPTURES = Path(__file__).parents[1] / "data" / "envoy"
TIME = 1_700_000_000_000_000_000
PANE_NS = 1_000_000_000
SETTINGS = ProcessorSettings.model_validate({"pane": "1s", "lookback": "3s", "partitions": 1})


@cache
def capture(name: str) -> tuple[bytes, ...]:
    data, at, requests = gzip.decompress((CAPTURES / f"{name}.bin.gz").read_bytes()), 0, []
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        requests.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return tuple(requests)


def text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def metrics(*given: Metric) -> bytes:
    resource = Resource(attributes=[text("service.name", "shop"), text("zone", "z1")])
    scope = InstrumentationScope(
        name="meter", version="2", attributes=[text("s", "t")], dropped_attributes_count=3
    )
    of_scope = ScopeMetrics(scope=scope, metrics=given, schema_url="scope-url")
    return MetricsData(
        resource_metrics=[
            ResourceMetrics(resource=resource, scope_metrics=[of_scope], schema_url="resource-url")
        ]
    ).SerializeToString()


def logs(*records: LogRecord, service: str = "shop") -> bytes:
    resource = Resource(attributes=[text("service.name", service)])
    of_scope = ScopeLogs(
        scope=InstrumentationScope(name="logger"), log_records=records, schema_url="scope-url"
    )
    return LogsData(
        resource_logs=[ResourceLogs(resource=resource, scope_logs=[of_scope], schema_url="resource-url")]
    ).SerializeToString()


def plain(rows: pa.Table, table: str) -> pa.Table:
    return pa.concat_tables(cut(rows, SCHEMAS[table]))


def log_table(payloads: Sequence[bytes]) -> pa.Table:
    batch = otlp.decode_logs(payloads)
    return plain(log_rows(batch, np.arange(len(batch), dtype=np.uint32), 0), "otel_logs")


def point_tables(payloads: Sequence[bytes]) -> dict[str, pa.Table]:
    batch = otlp.decode_points(payloads)
    tables = point_rows(batch, np.arange(len(batch), dtype=np.uint32), 0)
    return {table: plain(rows, table) for table, rows in tables.items()}


def identities(payloads: Sequence[bytes]) -> list[tuple[int, int]]:
    logs = otlp.decode_logs(payloads).logs
    return list(zip(logs["identity_hi"].to_pylist(), logs["identity_lo"].to_pylist(), strict=True))


def only(table: pa.Table) -> dict[str, Any]:
    (row,) = table.to_pylist(maps_as_pydicts="strict")
    return {name: value.value if hasattr(value, "value") else value for name, value in row.items()}


EXEMPLAR = Exemplar(
    time_unix_nano=TIME,
    as_int=4,
    trace_id=bytes(15) + b"\1",
    span_id=bytes(7) + b"\2",
    filtered_attributes=[text("user", "u")],
)
HEAD = {
    "ResourceAttributes": {"service.name": "shop", "zone": "z1"}, "ResourceSchemaUrl": "resource-url", "ScopeName": "meter",
    "ScopeVersion": "2", "ScopeAttributes": {"s": "t"}, "ScopeDroppedAttrCount": 3, "ScopeSchemaUrl": "scope-url", "ServiceName": "shop",
    "MetricName": "m", "MetricDescription": "d", "MetricUnit": "By", "Attributes": {"a": "b"}, "StartTimeUnix": TIME - 5, "TimeUnix": TIME,
    "Flags": 2,
}  # fmt: skip
POINT: dict[str, Any] = {
    "attributes": [text("a", "b")],
    "start_time_unix_nano": TIME - 5,
    "time_unix_nano": TIME,
    "flags": 2,
}
EXTREMES: dict[str, Any] = {"count": 6, "sum": 7.5, "min": 0.5, "max": 3}
EXEMPLARS = {
    "Exemplars.FilteredAttributes": [{"user": "u"}], "Exemplars.Value": [4.0], "Exemplars.SpanId": ["0000000000000002"],
    "Exemplars.TraceId": [bytes(15).hex() + "01"],
}  # fmt: skip
NO_EXEMPLARS: dict[str, list[Any]] = {name: [] for name in EXEMPLARS}
DELTA = AGGREGATION_TEMPORALITY_DELTA


@pytest.mark.parametrize(
    ("table", "data", "values"),
    [
        (
            "gauge",
            {"gauge": Gauge(data_points=[NumberDataPoint(as_double=1.5, exemplars=[EXEMPLAR], **POINT)])},
            {"Value": 1.5, **EXEMPLARS},
        ),
        ("gauge", {"gauge": Gauge(data_points=[NumberDataPoint(**POINT)])}, {"Value": 0.0, **NO_EXEMPLARS}),
        (
            "sum",
            {"sum": Sum(is_monotonic=True, aggregation_temporality=DELTA, data_points=[NumberDataPoint(as_int=-2, **POINT)])},
            {"Value": -2.0, "IsMonotonic": True, "AggregationTemporality": 1, **NO_EXEMPLARS},
        ),
        (
            "histogram",
            {
                "histogram": Histogram(
                    aggregation_temporality=DELTA,
                    data_points=[HistogramDataPoint(bucket_counts=[4, 2], explicit_bounds=[1], **EXTREMES, **POINT)],
                )
            },
            {"Count": 6, "Sum": 7.5, "Min": 0.5, "Max": 3.0, "BucketCounts": [4, 2], "ExplicitBounds": [1.0], "AggregationTemporality": 1},
        ),
        (
            "exponential_histogram",
            {
                "exponential_histogram": ExponentialHistogram(
                    aggregation_temporality=DELTA,
                    data_points=[
                        ExponentialHistogramDataPoint(
                            scale=-3,
                            zero_count=1,
                            positive=ExponentialHistogramDataPoint.Buckets(offset=-1, bucket_counts=[2, 3]),
                            negative=ExponentialHistogramDataPoint.Buckets(offset=5, bucket_counts=[4]),
                            **EXTREMES,
                            **POINT,
                        )
                    ],
                )
            },
            {
                "Count": 6, "Sum": 7.5, "Min": 0.5, "Max": 3.0, "Scale": -3, "ZeroCount": 1, "PositiveOffset": -1,
                "PositiveBucketCounts": [2, 3], "NegativeOffset": 5, "NegativeBucketCounts": [4], "AggregationTemporality": 1,
            },
        ),
        (
            "summary",
            {
                "summary": Summary(
                    data_points=[
                        SummaryDataPoint(
                            count=6, sum=7.5, quantile_values=[SummaryDataPoint.ValueAtQuantile(quantile=0.5, value=2)], **POINT
                        )
                    ]
                )
            },
            {"Count": 6, "Sum": 7.5, "ValueAtQuantiles.Quantile": [0.5], "ValueAtQuantiles.Value": [2.0]},
        ),
    ],
)  # fmt: skip
def test_a_point_column_by_column(table: str, data: dict[str, Any], values: dict[str, Any]) -> None:
    tables = point_tables([b"", metrics(Metric(name="m", description="d", unit="By", **data))])
    assert {name for name, rows in tables.items() if rows.num_rows} == {f"otel_metrics_{table}"}
    row = only(tables[f"otel_metrics_{table}"])
    assert {name: row[name] for name in HEAD | values} == HEAD | values


@pytest.mark.parametrize(
    ("start", "time", "expected"),
    [
        (TIME // 1000 - 7, TIME, TIME - 7_000),
        (TIME - 7, TIME, TIME - 7),
        (10**16 - 1, 2**64 - 1, 2**63 - 1),
        (2**64 - 1, 0, 2**63 - 1),
    ],
    ids=["Envoy's", "ours", "microseconds beyond int64", "nanoseconds beyond int64"],
)
def test_envoys_microseconds_are_set_right(start: int, time: int, expected: int) -> None:
    """The third one, a metric of 40 bytes, ended the process."""
    point = NumberDataPoint(start_time_unix_nano=start, time_unix_nano=time)
    tables = point_tables([metrics(Metric(name="m", sum=Sum(data_points=[point])))])
    assert only(tables["otel_metrics_sum"])["StartTimeUnix"] == expected


def test_no_recorded_value_is_no_zero() -> None:
    """Prometheus' stale marker as a Collector sends it; a value that is there all the same stays."""
    none: dict[str, Any] = {"time_unix_nano": TIME, "flags": 1}
    tables = point_tables([
        metrics(
            Metric(name="a", gauge=Gauge(data_points=[NumberDataPoint(**none), NumberDataPoint(as_double=1.5, **none)])),
            Metric(name="b", sum=Sum(data_points=[NumberDataPoint(as_int=0, **none)])),
            Metric(name="c", histogram=Histogram(data_points=[HistogramDataPoint(**none)])),
            Metric(name="d", summary=Summary(data_points=[SummaryDataPoint(**none)])),
            Metric(name="e", gauge=Gauge(data_points=[NumberDataPoint(time_unix_nano=TIME)])),
        )
    ])  # fmt: skip
    values = {
        table: [str(value) for value in rows[column].to_pylist()]
        for table, rows in tables.items()
        for column in ("Value", "Sum")
        if column in rows.column_names and rows.num_rows
    }
    assert {table: sorted(found) for table, found in values.items()} == {
        "otel_metrics_gauge": ["0.0", "1.5", "nan"], "otel_metrics_sum": ["nan"], "otel_metrics_histogram": ["nan"],
        "otel_metrics_summary": ["nan"],
    }  # fmt: skip


def test_a_log_record_column_by_column() -> None:
    record = LogRecord(
        observed_time_unix_nano=TIME, severity_number=9, severity_text="INFO", body=AnyValue(string_value="hello"), flags=0x101,  # type: ignore[arg-type]  # SeverityNumber
        trace_id=bytes(15) + b"\1", span_id=bytes(8), attributes=[text("a", "b")], event_name="e",
    )  # fmt: skip
    assert only(log_table([logs(record)])) == {
        "Timestamp": TIME, "TraceId": bytes(15).hex() + "01", "SpanId": "", "TraceFlags": 1, "SeverityText": "INFO", "SeverityNumber": 9,
        "ServiceName": "shop", "Body": "hello", "ResourceSchemaUrl": "resource-url", "ResourceAttributes": {"service.name": "shop"},
        "ScopeSchemaUrl": "scope-url", "ScopeName": "logger", "ScopeVersion": "", "ScopeAttributes": {}, "LogAttributes": {"a": "b"},
        "EventName": "e", "LogTime": 0,
    }  # fmt: skip


def test_equal_records_of_one_message_are_two_and_a_message_sent_again_is_a_copy() -> None:
    record = LogRecord(time_unix_nano=TIME, body=AnyValue(string_value="again"))
    once, twice = identities([logs(record, record)]), identities([logs(record, record)] * 2)
    assert len(set(once)) == 2
    assert twice == once * 2
    assert identities([logs(record, service="other")])[0] not in once


@pytest.mark.parametrize("decode", [otlp.decode_logs, otlp.decode_points])
def test_a_malformed_payload_is_named(decode: Any) -> None:
    with pytest.raises(MalformedOtlp) as caught:
        decode([b"", b"\x0a\x05"])
    assert caught.value.record == 1


def log_of(payloads: Sequence[bytes], per_pane: int) -> list[Record]:
    """Payloads as records of a log, then a record far later that closes the last pane."""
    records = [
        Record(i, TIME + i * PANE_NS // per_pane, payload, len(payload)) for i, payload in enumerate(payloads)
    ]
    return [*records, Record(len(records), TIME + 10**12, b"", 0)]


def processor(topic: str, commit: Commit | None = None) -> Processor:
    make = point_processor if topic == topics.METRICS else log_processor
    return make(TopicPartition(topic, 0), SETTINGS, commit)


def totals(emits: Sequence[Emit]) -> Counter[str]:
    """Rows of each table, and the ledger's sums."""
    sums: Counter[str] = Counter()
    for block in (block for emit in emits for block in emit.blocks):
        assert block.rows.schema == SCHEMAS[block.table]
        if block.table == "ledger":
            (row,) = block.rows.to_pylist()
            sums.update(
                {
                    name: row[name]
                    for name in (
                        "received",
                        "rejected",
                        "duplicate",
                        "aggregated",
                        "left_out",
                        "kept",
                        "dropped",
                        "stored",
                    )
                }
            )
        else:
            sums[block.table] += block.rows.num_rows
    return sums


def test_envoys_access_logs() -> None:
    requests = capture("logs")
    sums = totals(processor(topics.LOGS).feed(log_of([*requests, *requests[-9:]], 20)))
    copies = len(otlp.decode_logs(requests[-9:]))
    assert sums == {
        "otel_logs": 2195, "received": 2195 + copies, "duplicate": copies, "kept": 2195, "stored": 2195, "rejected": 0, "dropped": 0,
        "aggregated": 0, "left_out": 0,
    }  # fmt: skip


def test_envoys_metrics() -> None:
    requests = capture("metrics")
    assert len(requests) == 360
    sample = requests[:60]
    given = SETTINGS.model_copy(update={"metrics": MetricSettings(keep=("*",))})
    it = point_processor(TopicPartition(topics.METRICS, 0), given)
    sums = totals(it.feed(log_of([*sample, sample[0]], 30)))
    per_request = [len(otlp.decode_points([request])) for request in sample]
    assert sums["stored"] == sums["kept"] + sums["aggregated"] == sum(per_request)
    assert sums["left_out"] == 0
    assert sums["duplicate"] == per_request[0]
    assert sum(sums[table] for table in sums if table.startswith("otel_")) == sums["stored"]


def test_copies_older_than_the_lookback_are_not_known() -> None:
    payload = logs(LogRecord(time_unix_nano=TIME))
    sums = totals(
        processor(topics.LOGS).feed(log_of([payload, b"", b"", payload, b"", b"", b"", b"", payload], 1))
    )
    assert (sums["kept"], sums["duplicate"]) == (2, 1)


def test_copies_of_points_are_looked_for_in_their_own_lookback_and_read_again_with_that_of_counters() -> None:
    gauge = Metric(name="m", gauge=Gauge(data_points=[NumberDataPoint(time_unix_nano=TIME, as_int=1)]))
    payload = metrics(gauge)
    given = SETTINGS.model_copy(update={"metrics_lookback": timedelta(seconds=6)})
    it = point_processor(TopicPartition(topics.METRICS, 0), given)
    emits = it.feed(log_of([payload, b"", payload, b"", b"", b"", payload, b"", b"", b""], 1)[:-1])
    sums = totals(emits)
    assert (sums["kept"], sums["duplicate"]) == (2, 1)
    assert emits[-1].commit.offset == 9 - 6, "what counters remember is read again"
    assert all(seen.get(SeenItems) is None for pane, seen in it._seen.items() if pane < TIME // PANE_NS + 5)


def test_a_malformed_record_is_set_aside() -> None:
    emits = processor(topics.LOGS).feed(
        log_of([logs(LogRecord(time_unix_nano=TIME)), b"\x0a\x05", logs(LogRecord(time_unix_nano=1))], 3)
    )
    assert [letter.offset for emit in emits for letter in emit.dead_letters] == [1]
    sums = totals(emits)
    assert (sums["received"], sums["rejected"], sums["kept"]) == (3, 1, 2)


def test_silence_emits_nothing() -> None:
    emits = processor(topics.LOGS).feed(log_of([b""] * 5, 1))
    assert [block for emit in emits for block in emit.blocks] == []


PAYLOADS = [
    logs(*(LogRecord(time_unix_nano=TIME + i * 7 + j) for j in range(3)), service=f"s{i % 2}")
    for i in range(8)
]


@examples(60)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=40), st.integers(1, 6), st.integers(0, 2**32))
def test_blocks_do_not_depend_on_polls_and_restarts(choice: list[int], per_pane: int, seed: int) -> None:
    chance = random.Random(seed)
    records = log_of([PAYLOADS[i] if i else b"" for i in choice], per_pane)
    expected = {
        block.token: block.rows for emit in processor(topics.LOGS).feed(records) for block in emit.blocks
    }
    found: dict[str, pa.Table] = {}
    it, commit, at = processor(topics.LOGS), None, 0
    while at < len(records):
        step = chance.randint(1, 6)
        for emit in it.feed(records[at : at + step]):
            for block in emit.blocks:
                assert found.setdefault(block.token, block.rows).equals(block.rows)
            commit = emit.commit
        at += step
        if chance.random() < 0.3:
            it = processor(topics.LOGS, commit)
            at = it.offset or 0
    assert found.keys() == expected.keys()
    assert all(found[token].equals(rows) for token, rows in expected.items())
    assert sum(
        rows.num_rows for token, rows in expected.items() if token.startswith("otel_logs")
    ) >= 3 * bool(any(choice))
