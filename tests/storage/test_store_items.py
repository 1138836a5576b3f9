"""Points and log records with the oddest values that OTLP's types allow are stored, each in its row."""

import math
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
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

from processors.logs.signal import log_processor
from processors.points.signal import point_processor
from processors.settings import ProcessorSettings
from schemas import topics
from schemas.records import Record, TopicPartition
from schemas.tables import Block
from storage.client import open_client
from tests.support.stores import ChdbPlace, opened, write

NOW_NS = time.time_ns()  # what is older than its TTL would expire under the test
SETTINGS = ProcessorSettings(partitions=1)
ODD: dict[str, Any] = {
    "start_time_unix_nano": 10**16 - 1,
    "time_unix_nano": 2**64 - 1,
    "flags": 2**32 - 2,
}  # all but NO_RECORDED_VALUE
TOTALS: dict[str, Any] = {"count": 2**64 - 1, "sum": math.nan}
BUCKETS = ExponentialHistogramDataPoint.Buckets(offset=-(2**31), bucket_counts=[2**64 - 1, 0])


def blocks(topic: str, payload: bytes) -> list[Block]:
    make = point_processor if topic == topics.METRICS else log_processor
    processor = make(TopicPartition(topic, 0), SETTINGS)
    end = Record(1, NOW_NS + 10**12, b"", 0)
    (emit,) = processor.feed([Record(0, NOW_NS, payload, len(payload)), end])
    assert not emit.dead_letters
    return list(emit.blocks)


def metrics() -> bytes:
    values = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308]
    data: list[dict[str, Any]] = [
        {"gauge": Gauge(data_points=[NumberDataPoint(as_double=value, **ODD) for value in values])},
        {"sum": Sum(aggregation_temporality=-5, data_points=[NumberDataPoint(as_int=-(2**63), **ODD)])},  # type: ignore[arg-type]  # an enum's number
        {
            "histogram": Histogram(
                aggregation_temporality=2**31 - 1,  # type: ignore[arg-type]
                data_points=[
                    HistogramDataPoint(
                        bucket_counts=[2**64 - 1], explicit_bounds=[math.nan, math.inf], **TOTALS, **ODD
                    )
                ],
            )
        },
        {
            "exponential_histogram": ExponentialHistogram(
                data_points=[
                    ExponentialHistogramDataPoint(
                        scale=-(2**31),
                        zero_count=2**64 - 1,
                        positive=BUCKETS,
                        negative=BUCKETS,
                        **TOTALS,
                        **ODD,
                    )
                ]
            )
        },
        {"summary": Summary(data_points=[SummaryDataPoint(**TOTALS, **ODD)])},
    ]
    of_scope = ScopeMetrics(metrics=[Metric(name="m\0", **each) for each in data])
    return MetricsData(resource_metrics=[ResourceMetrics(scope_metrics=[of_scope])]).SerializeToString()


def logs() -> bytes:
    records = [
        LogRecord(severity_number=number, time_unix_nano=when)  # type: ignore[arg-type]  # an enum's number
        for number, when in ((-1, 0), (2**31 - 1, 2**64 - 1), (25, 1))
    ]
    of_resource = ResourceLogs(scope_logs=[ScopeLogs(log_records=records)])
    return LogsData(resource_logs=[of_resource]).SerializeToString()


def test_odd_values_are_stored(tmp_path: Path) -> None:
    settings = ChdbPlace(tmp_path).settings()
    with opened(settings):
        write(settings, *blocks(topics.METRICS, metrics()), *blocks(topics.LOGS, logs()))
        with closing(open_client(settings.store_place)) as client:

            def rows(what: str, table: str) -> list[tuple[Any, ...]]:
                return list(map(tuple, client.query(f"SELECT {what} FROM {table}").result_rows))

            assert sorted(map(str, (value for (value,) in rows("Value", "otel_metrics_gauge")))) == [
                "-0.0", "-inf", "1.7976931348623157e+308", "5e-324", "inf", "nan",
            ]  # fmt: skip
            assert rows("Value, AggregationTemporality", "otel_metrics_sum") == [(-(2.0**63), -5)]
            assert rows("Count, BucketCounts, AggregationTemporality", "otel_metrics_histogram") == [
                (2**64 - 1, [2**64 - 1], 2**31 - 1)
            ]
            assert rows("Scale, ZeroCount, NegativeOffset, Flags", "otel_metrics_exponential_histogram") == [
                (-(2**31), 2**64 - 1, -(2**31), 2**32 - 2)
            ]
            assert rows("Count", "otel_metrics_summary") == [(2**64 - 1,)]
            assert sorted(rows("SeverityNumber", "otel_logs")) == [(25,), (255,), (255,)]
            assert rows("sum(received), sum(stored), sum(cut)", "ledger") == [(13, 13, 0)]
