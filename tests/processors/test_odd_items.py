"""Small messages that are well-formed, and odd: each is stored, or rejected and counted, and ends nothing."""

from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from processors.logs.signal import log_processor
from processors.panes import Emit
from processors.points.signal import point_processor
from processors.settings import ProcessorSettings
from processors.spans.signal import span_processor
from schemas import topics
from schemas.records import Record, TopicPartition
from schemas.tables import SCHEMAS
from tests.support.span_log import KEEP_ALL, T0_S

SETTINGS = ProcessorSettings(partitions=1)
NUMBERS: list[Any] = [0, 1, 127, 128, 255, 256, 65_535, 65_536, 2**31 - 1, -1, -(2**31)]
BIG = [0, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
FLOATS = [float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, 1.7e308]


def metric(**kind: Any) -> bytes:
    data = metrics_pb2.MetricsData()
    data.resource_metrics.add().scope_metrics.add().metrics.add(name="m", **kind)
    value: bytes = data.SerializeToString()
    return value


def metrics() -> list[bytes]:
    pb = metrics_pb2
    found = [metric()]
    for number in NUMBERS:
        point = pb.NumberDataPoint(as_int=number)
        found.append(metric(sum=pb.Sum(aggregation_temporality=number, data_points=[point])))
        exponential = pb.ExponentialHistogramDataPoint(
            scale=number,
            positive=pb.ExponentialHistogramDataPoint.Buckets(offset=number, bucket_counts=[1]),
        )
        found.append(
            metric(
                exponential_histogram=pb.ExponentialHistogram(
                    aggregation_temporality=number,
                    data_points=[exponential],
                )
            )
        )
    for whole in (2**53 + 1, 2**63 - 1, -(2**63)):  # no double is equal to the first two
        found.append(metric(gauge=pb.Gauge(data_points=[pb.NumberDataPoint(as_int=whole)])))
        found.append(metric(sum=pb.Sum(data_points=[pb.NumberDataPoint(as_int=whole)])))
        exemplar = pb.Exemplar(as_int=whole)
        found.append(metric(gauge=pb.Gauge(data_points=[pb.NumberDataPoint(exemplars=[exemplar])])))
    for big in BIG:
        times: Any = {"time_unix_nano": big, "start_time_unix_nano": big}
        exemplar = pb.Exemplar(time_unix_nano=big, as_double=1, trace_id=b"x", span_id=b"y" * 9)
        found.append(metric(gauge=pb.Gauge(data_points=[pb.NumberDataPoint(exemplars=[exemplar], **times)])))
        histogram = pb.HistogramDataPoint(count=big, bucket_counts=[big, big], **times)
        found.append(metric(histogram=pb.Histogram(data_points=[histogram])))
        found.append(metric(summary=pb.Summary(data_points=[pb.SummaryDataPoint(count=big, **times)])))
    for value in FLOATS:
        quantile = pb.SummaryDataPoint.ValueAtQuantile(quantile=value, value=value)
        found.append(
            metric(gauge=pb.Gauge(data_points=[pb.NumberDataPoint(as_double=value, flags=2**32 - 1)]))
        )
        found.append(
            metric(summary=pb.Summary(data_points=[pb.SummaryDataPoint(quantile_values=[quantile])]))
        )
        histogram = pb.HistogramDataPoint(explicit_bounds=[value], sum=value, min=value, max=value)
        found.append(metric(histogram=pb.Histogram(data_points=[histogram])))
    return found


def logs() -> list[bytes]:
    records = [logs_pb2.LogRecord(severity_number=number, flags=abs(number)) for number in NUMBERS]
    records += [logs_pb2.LogRecord(time_unix_nano=big, observed_time_unix_nano=big) for big in BIG]
    records.append(logs_pb2.LogRecord(trace_id=b"x", span_id=b"y", body=AnyValue(bytes_value=b"\xff\0")))
    records.append(logs_pb2.LogRecord(attributes=[KeyValue(key=""), KeyValue(key="")]))
    found = []
    for record in records:
        data = logs_pb2.LogsData()
        data.resource_logs.add().scope_logs.add().log_records.append(record)
        found.append(data.SerializeToString())
    return found


def spans() -> list[bytes]:
    ids: Any = {"trace_id": b"t" * 16, "span_id": b"s" * 8}
    odd = [trace_pb2.Span(kind=number, flags=abs(number), **ids) for number in NUMBERS]
    odd += [trace_pb2.Span(start_time_unix_nano=big, **ids) for big in BIG]
    odd += [trace_pb2.Span(end_time_unix_nano=big, **ids) for big in BIG]
    odd += [trace_pb2.Span(events=[trace_pb2.Span.Event(time_unix_nano=big)], **ids) for big in BIG]
    odd += [
        trace_pb2.Span(status=trace_pb2.Status(code=number), trace_state="ot=th:zz;rv:,,=", **ids)
        for number in NUMBERS
    ]
    for text in ("99999999999999999999", "-1", "1e9", "١", "65536", ""):
        attributes = [
            KeyValue(key=key, value=AnyValue(string_value=text))
            for key in ("http.status_code", "retry.count", "http.response.status_code")
        ]
        odd.append(trace_pb2.Span(attributes=attributes, **ids))
    found = []
    for span in odd:
        data = trace_pb2.TracesData()
        data.resource_spans.add().scope_spans.add().spans.append(span)
        found.append(data.SerializeToString())
    return found


def feed(topic: str, values: list[bytes]) -> list[Emit]:
    tp = TopicPartition(topic, 0)
    if topic == topics.SPANS:
        processor = span_processor(tp, SETTINGS, KEEP_ALL)
        return processor.feed(log_of(values))
    if topic == topics.LOGS:
        return log_processor(tp, SETTINGS).feed(log_of(values))
    return point_processor(tp, SETTINGS).feed(log_of(values))


def log_of(values: list[bytes]) -> list[Record]:
    """Each in a pane of its own, so that none is a copy within its pane."""
    records = [
        Record(offset, (T0_S + 80 * offset) * 10**9, value, len(value)) for offset, value in enumerate(values)
    ]
    end = len(records)
    return [*records, *(Record(end + n, (T0_S + 80 * (end + n)) * 10**9, b"", 0) for n in range(3))]


@pytest.mark.parametrize(
    ("topic", "make"), [(topics.METRICS, metrics), (topics.LOGS, logs), (topics.SPANS, spans)]
)
def test_odd_items_are_stored_or_rejected(topic: str, make: Callable[[], list[bytes]]) -> None:
    values = make()
    emits = feed(topic, values)
    ledger = [
        row
        for emit in emits
        for block in emit.blocks
        if block.table == "ledger"
        for row in block.rows.to_pylist()
    ]
    for row in ledger:
        assert row["received"] == row["rejected"] + row["duplicate"] + row["kept"] + row["dropped"]
    kept = sum(row["kept"] for row in ledger)
    letters = [letter for emit in emits for letter in emit.dead_letters]
    assert letters == []
    assert kept == sum(bool(value) for value in values) - (topic == topics.METRICS)  # a metric without points
    for emit in emits:
        for block in emit.blocks:
            assert block.rows.schema.equals(SCHEMAS[block.table])
            block.rows.validate(full=True)
