"""What goes where when a request is split."""

from collections import Counter
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    Gauge,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from schemas import otlp, topics
from schemas.errors import MalformedOtlp
from schemas.ids import is_valid, mix, resource_partition, trace_partition
from schemas.otlp.wire import framed
from tests.schemas.otlp_messages import SPAN_ID, TRACE_ID, key_values, make_span, make_traces, traces
from tests.support.examples import examples


def _spans_of(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """(resource and schema URLs, scope, span) of each span, serialised."""
    return [
        (
            resource_spans.resource.SerializeToString() + resource_spans.schema_url.encode(),
            scope_spans.scope.SerializeToString() + scope_spans.schema_url.encode(),
            span.SerializeToString(),
        )
        for resource_spans in TracesData.FromString(data).resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


@examples(30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.lists(traces, max_size=2).map(b"".join), partitions=st.sampled_from([1, 2, 5]))
def test_every_valid_span_is_in_one_part_with_its_surroundings(
    decoder: ModuleType, data: bytes, partitions: int
) -> None:
    parts, items, bad_trace_ids, bad_span_ids, *_ = decoder.split(topics.SPANS, data, partitions)
    before = _spans_of(data)
    kept = [
        row
        for row in before
        if is_valid((span := Span.FromString(row[2])).trace_id, 16) and is_valid(span.span_id, 8)
    ]
    after = {partition: _spans_of(part) for partition, part in parts.items()}
    assert Counter(row for rows in after.values() for row in rows) == Counter(kept)
    assert items == len(kept)
    assert bad_trace_ids + bad_span_ids == len(before) - len(kept)
    for partition, rows in after.items():
        assert rows, "a part without items"
        assert {trace_partition(Span.FromString(row[2]).trace_id, partitions) for row in rows} == {partition}
        assert [row for row in kept if row in rows] == rows  # in the order of the request


def test_bytes_stay_as_they_are(decoder: ModuleType) -> None:
    """Overlong lengths, unknown fields and odd orders: what is in a span or a container is not written
    anew.
    """
    span = (
        b"\x12\xa2\x80\x80\x80\x00"
        + b"\x0a\x10"
        + TRACE_ID
        + b"\x12\x08"
        + SPAN_ID
        + b"\x98\x06\x01\x98\x06\x01"
    )  # an overlong length
    scope_spans = span + b"\x9a\x06\x01x" + framed(1, b"") + span
    request = (
        framed(1, b"\x9a\x06\x01y" + framed(2, scope_spans) + framed(3, b"url") + framed(1, b""))
        + b"\x9a\x06\x01z"
    )
    parts, items, *_ = decoder.split(topics.SPANS, request, 2)
    rest, own = b"\x9a\x06\x01x" + framed(1, b""), b"\x9a\x06\x01y" + framed(3, b"url") + framed(1, b"")
    assert parts == {trace_partition(TRACE_ID, 2): framed(1, own + framed(2, rest + span + span))}
    assert items == 2
    assert decoder.split(topics.SPANS, request, 1)[0] == {0: request}  # nothing to cut: nothing changed


@pytest.mark.parametrize("partitions", [1, 3])
def test_spans_with_invalid_ids_are_left_out(decoder: ModuleType, partitions: int) -> None:
    wrong: list[dict[str, Any]] = [
        {"trace_id": b""},
        {"trace_id": bytes(16)},
        {"trace_id": b"x" * 17},
        {"span_id": b"x"},
        {"span_id": bytes(8)},
        {"trace_id": b"", "span_id": b""},
    ]
    request = make_traces(make_span(name="good"), *(make_span(**fields) for fields in wrong))
    parts, items, bad_trace_ids, bad_span_ids, *_ = decoder.split(topics.SPANS, request, partitions)
    assert parts == {
        trace_partition(TRACE_ID, partitions): make_traces(make_span(name="good")).replace(b"\x1a\x00", b"")
    }
    assert (items, bad_trace_ids, bad_span_ids) == (1, 4, 2)
    assert decoder.split(topics.SPANS, make_traces(make_span(trace_id=b"")), partitions)[:4] == ({}, 0, 1, 0)


def test_log_records_without_a_trace_go_by_resource(decoder: ModuleType) -> None:
    resource = Resource(attributes=key_values({"log_name": "a", "node_name": "b"}))
    records = [LogRecord(trace_id=trace_id) for trace_id in (TRACE_ID, b"", bytes(16), b"odd", b"\x07" * 16)]
    request = LogsData(
        resource_logs=[ResourceLogs(resource=resource, scope_logs=[ScopeLogs(log_records=records)])]
    )
    by_resource = resource_partition([attribute.SerializeToString() for attribute in resource.attributes], 64)
    parts, items, *rejected, _, _ = decoder.split(topics.LOGS, request.SerializeToString(), 64)
    found = {
        partition: [
            record.trace_id for record in LogsData.FromString(part).resource_logs[0].scope_logs[0].log_records
        ]
        for partition, part in parts.items()
    }
    assert found == {
        trace_partition(TRACE_ID, 64): [TRACE_ID],
        by_resource: [b"", bytes(16), b"odd"],
        trace_partition(b"\x07" * 16, 64): [b"\x07" * 16],
    }
    assert (items, rejected) == (5, [0, 0])


def test_metrics_stay_together_by_resource_and_count_points(decoder: ModuleType) -> None:
    points = [NumberDataPoint(as_int=number) for number in range(3)]
    metrics = [
        Metric(name="g", gauge=Gauge(data_points=points)),
        Metric(name="s", sum=Sum(data_points=points[:2])),
        Metric(name="none"),
    ]
    messages = [
        ResourceMetrics(
            resource=Resource(attributes=key_values({"n": number})),
            scope_metrics=[ScopeMetrics(metrics=metrics)],
        )
        for number in range(20)
    ]
    empty = ResourceMetrics(scope_metrics=[ScopeMetrics(metrics=[Metric(name="none")])])
    request = MetricsData(resource_metrics=[*messages, empty]).SerializeToString()
    parts, items, *_ = decoder.split(topics.METRICS, request, 4)
    assert items == 20 * 5
    expected: dict[int, bytes] = {}
    for message in messages:
        partition = resource_partition(
            [attribute.SerializeToString() for attribute in message.resource.attributes], 4
        )
        expected[partition] = expected.get(partition, b"") + framed(1, message.SerializeToString())
    assert parts == expected
    assert len(parts) == 4


def test_of_two_kinds_of_data_the_last_counts(decoder: ModuleType) -> None:
    gauge, sums = (framed(number, framed(1, b"") * count) for number, count in ((5, 2), (7, 3)))
    for metric, points in ((gauge + gauge, 4), (gauge + sums, 3), (gauge + sums + gauge, 2)):
        assert decoder.split(topics.METRICS, framed(1, framed(2, framed(2, metric))), 3)[1] == points


@pytest.mark.parametrize("topic", topics.TOPICS)
@pytest.mark.parametrize("request_bytes", [b"", framed(1, b""), framed(1, framed(2, b"")), b"\x9a\x06\x01z"])
def test_requests_without_items(decoder: ModuleType, topic: str, request_bytes: bytes) -> None:
    for partitions in (1, 3):
        assert decoder.split(topic, request_bytes, partitions) == ({}, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("topic", topics.TOPICS)
def test_malformed_requests(decoder: ModuleType, topic: str) -> None:
    for request in (
        b"\x0a",
        b"\xff" * 20,
        framed(1, framed(1, framed(1, framed(1, b"\xff")))),
        framed(1, framed(3, b"\xff")),
    ):
        with pytest.raises(MalformedOtlp):
            decoder.split(topic, request, 3)


# The log is written by these: a change would move traces to other partitions while it is read.
def test_partitions_never_change() -> None:
    assert mix(1) == 0xB456BCFC34C2CB2C  # MurmurHash3's fmix64
    assert [trace_partition(bytes([number]) * 16, 32) for number in range(1, 9)] == [
        21,
        12,
        9,
        17,
        20,
        5,
        11,
        16,
    ]
    assert [resource_partition([b"a", bytes([number])], 32) for number in range(8)] == [
        21,
        24,
        28,
        7,
        18,
        28,
        26,
        10,
    ]


def test_partitions_are_even_among_sampled_traces() -> None:
    """Ids with the highest low 56 bits (as those of a small sample have), and ids with a zero high half,
    spread all the same.
    """
    sampled = [number.to_bytes(9, "big") + b"\xff\xff\xff\xff\xff\xff\xff" for number in range(8000)]
    short = [bytes(8) + number.to_bytes(8, "big") for number in range(1, 8001)]
    for ids in (sampled, short):
        counts = Counter(trace_partition(trace_id, 8) for trace_id in ids)
        assert len(counts) == 8
        assert all(850 < count < 1150 for count in counts.values())


def test_facade_counts_and_says_why() -> None:
    request = make_traces(
        make_span(), make_span(trace_id=b""), make_span(span_id=b""), make_span(span_id=bytes(8))
    )
    result = otlp.split(topics.SPANS, request, 4)
    assert (result.items, result.rejected) == (1, 3)
    assert result.reason == (
        "spans rejected: 1 with a trace id that is not 16 bytes or is zero, 2 with a span id that is not 8 bytes or is zero"
    )
    assert otlp.split(topics.SPANS, make_traces(make_span()), 4).reason == ""


def test_facade_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="not an OTLP topic"):
        otlp.split(topics.DEAD_LETTER, b"", 1)
    for partitions in (0, -1, otlp.MAX_PARTITIONS + 1):
        with pytest.raises(ValueError, match="partitions must be 1 to"):
            otlp.split(topics.SPANS, b"", partitions)
