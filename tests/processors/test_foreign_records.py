"""Records that ingest would never have appended: broken ones, and spans without ids. Each is counted, none
ends the processing.
"""

from dataclasses import replace

import pyarrow as pa
import pytest
from google.protobuf.message import Message
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, TracesData
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from processors.logs.signal import log_processor
from processors.points.signal import point_processor
from processors.readers.partition import Processor
from processors.settings import ProcessorSettings
from processors.spans.signal import span_processor
from schemas import topics
from schemas.errors import MalformedOtlp
from schemas.otlp.wire import framed
from schemas.records import Record, TopicPartition
from tests.support.span_log import KEEP_ALL, T0_S, Span, make_log, process, rows

SETTINGS = ProcessorSettings(partitions=1)


def test_a_record_that_cannot_be_unpacked_says_so() -> None:
    for broken in (
        Record(0, 0, b"\0\1\2", 1_000, "lz4"),
        Record(0, 0, b"", 1_000, "zstd"),
        Record(0, 0, b"x", 1_000, "no codec"),
    ):
        with pytest.raises(MalformedOtlp, match="cannot be unpacked"):
            broken.unpack()


def test_a_record_of_spans_that_cannot_be_unpacked_is_set_aside() -> None:
    log = make_log((0, [Span("a", 1)]), (0.5, []), (0.6, [Span("a", 2)]))
    log[1] = replace(log[1], payload=b"\0 broken", size=100, codec="lz4")
    emits = process(log, SETTINGS)
    assert [(letter.offset, letter.record.payload) for emit in emits for letter in emit.dead_letters] == [
        (1, b"\0 broken")
    ]
    (row,) = rows(emits, "ledger")
    assert (row["received"], row["rejected"], row["kept"]) == (3, 1, 2)


@pytest.mark.parametrize("topic", [topics.METRICS, topics.LOGS])
def test_a_record_of_items_that_cannot_be_unpacked_is_set_aside(topic: str) -> None:
    processor: Processor
    if topic == topics.LOGS:
        processor, good = (
            log_processor(TopicPartition(topic, 0), SETTINGS),
            LogsData(
                resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=[LogRecord()])])]
            ).SerializeToString(),
        )
    else:
        processor, good = (
            point_processor(TopicPartition(topic, 0), SETTINGS),
            MetricsData().SerializeToString(),
        )
    start_ns = T0_S * 10**9
    records = [
        Record(0, start_ns, good, len(good)),
        Record(1, start_ns, b"\0 broken", 100, "lz4"),
        Record(2, start_ns, b"\xff", 1),
    ]
    emits = processor.feed([*records, Record(3, start_ns + 10**12, b"", 0)])
    assert [letter.offset for emit in emits for letter in emit.dead_letters] == [1, 2]
    (row,) = rows(emits, "ledger")
    assert (row["rejected"], row["kept"]) == (2, 1 if topic == topics.LOGS else 0)


BROKEN_ITEM = framed(1, framed(2, framed(2, b"\x0a\x7f")))
BROKEN_POINT = framed(1, framed(2, framed(2, framed(1, b"m") + framed(5, framed(1, b"\x3a\x7f")))))


def test_one_bad_span_of_a_record_costs_itself() -> None:
    """Kafka's records may come from any writer; ingest would have mended them."""
    log = make_log((0, [Span("a", 1)]), (0.5, [Span("caf?", 2), Span("b", 3)]), (0.6, [Span("a", 4)]))
    payload = log[1].payload.replace(b"caf?", b"caf\xe9") + BROKEN_ITEM
    log[1] = replace(log[1], payload=payload, size=len(payload))
    emits = process(log, SETTINGS, sampling=KEEP_ALL)
    assert [letter for emit in emits for letter in emit.dead_letters] == []
    (row,) = rows(emits, "ledger")
    assert (row["received"], row["rejected"], row["kept"], row["repaired"]) == (5, 1, 4, 1)
    assert sorted(str(row["ServiceName"]) for row in rows(emits, "otel_traces")) == [
        "a",
        "a",
        "b",
        "caf\ufffd",
    ]


@pytest.mark.parametrize("codec", ["", "zstd"])
@pytest.mark.parametrize("topic", [topics.METRICS, topics.LOGS])
def test_one_bad_item_of_a_record_costs_itself(topic: str, codec: str) -> None:
    processor: Processor
    if topic == topics.LOGS:
        processor = log_processor(TopicPartition(topic, 0), SETTINGS)
        records = [LogRecord(), LogRecord(severity_text="caf?")]
        data: Message = LogsData(resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=records)])])
        payload = data.SerializeToString() + BROKEN_ITEM
    else:
        processor = point_processor(TopicPartition(topic, 0), SETTINGS)
        data = MetricsData()
        for name in ("m", "caf?"):
            metric = data.resource_metrics.add().scope_metrics.add().metrics.add(name=name)
            metric.gauge.data_points.add(as_double=1)
        payload = data.SerializeToString() + BROKEN_POINT
    payload = payload.replace(b"caf?", b"caf\xe9")
    packed = pa.compress(payload, codec=codec, asbytes=True) if codec else payload
    start_ns = T0_S * 10**9
    emits = processor.feed(
        [Record(0, start_ns, packed, len(payload), codec), Record(1, start_ns + 10**12, b"", 0)]
    )
    assert [letter for emit in emits for letter in emit.dead_letters] == []
    (row,) = rows(emits, "ledger")
    assert (row["received"], row["rejected"], row["kept"], row["repaired"]) == (3, 1, 2, 1)


def test_what_ingest_mended_is_in_the_ledger() -> None:
    log = make_log((0, [Span("a", 1)]), (0.5, [Span("a", 2)]))
    log[1] = replace(log[1], headers={"repaired": 7})
    (row,) = rows(process(log, SETTINGS), "ledger")
    assert row["repaired"] == 7


def test_a_record_over_a_panes_limit_that_cannot_be_unpacked_counts_as_one_item() -> None:
    log = make_log((0, [Span("a", 1)]), (0.5, []), (9, []))
    log[1] = replace(log[1], payload=b"\0 broken", size=2 << 20, codec="lz4")
    emits = process(log, ProcessorSettings(partitions=1, pane_bytes=1 << 20))
    (letter,) = [letter for emit in emits for letter in emit.dead_letters]
    assert (letter.offset, letter.record.payload, letter.record.size) == (1, b"", 2 << 20)
    assert [(row["rejected"], row["kept"]) for row in rows(emits, "ledger")] == [(1, 1)]


def spans_without_ids() -> list[Span]:
    """200 spans that would be one giant trace, and 100 that would be copies of one another."""
    return [
        *(Span("a", number + 1, trace=0) for number in range(200)),
        *(Span("a", 0, trace=number + 1) for number in range(100)),
    ]


def test_spans_without_ids_are_rejected_and_not_taken_for_one_trace() -> None:
    emits = process(make_log((0, [*spans_without_ids(), Span("a", 1)])), SETTINGS)
    (row,) = rows(emits, "ledger")
    assert (row["received"], row["rejected"], row["duplicate"], row["kept"], row["dropped"]) == (
        301,
        300,
        0,
        1,
        0,
    )
    assert [row["SpanId"] for row in rows(emits, "otel_traces")] == [f"{1:016x}"]
    assert len(rows(emits, "red_10s")) == 1


def test_ids_of_a_wrong_length_are_none() -> None:
    ids = [
        (b"t" * 15, b"s" * 8),
        (b"t" * 17, b"s" * 8),
        (b"", b"s" * 8),
        (b"t" * 16, b"s" * 7),
        (b"t" * 16, b""),
    ]
    spans = [OtlpSpan(trace_id=trace_id, span_id=span_id) for trace_id, span_id in ids]
    value = TracesData(
        resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])]
    ).SerializeToString()
    processor = span_processor(TopicPartition(topics.SPANS, 0), SETTINGS, KEEP_ALL)
    emits = processor.feed(
        [Record(0, T0_S * 10**9, value, len(value)), Record(1, (T0_S + 900) * 10**9, b"", 0)]
    )
    assert [(row["received"], row["rejected"]) for row in rows(emits, "ledger")] == [(5, 5)]
    assert {block.table for emit in emits for block in emit.blocks} == {"ledger"}


def test_what_a_repartition_lost_is_in_the_ledger() -> None:
    log = make_log((0, []), (6, []), (12, []))
    log[1] = replace(log[1], headers={"lost": 4})
    assert [row["lost"] for row in rows(process(log, SETTINGS), "ledger")] == [4]
