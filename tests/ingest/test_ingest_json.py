"""OTLP/JSON to protobuf: what its specification, and proto3 JSON, let senders write."""

import base64
import json
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData

from schemas import topics
from schemas.errors import MalformedOtlp
from schemas.otlp.json import to_protobuf

TRACE_ID, SPAN_ID, PARENT_ID = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174", "EEE19B7EC3C1B173"

CAMEL = {
    "resourceSpans": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
            "scopeSpans": [
                {
                    "scope": {"name": "lib", "version": "1"},
                    "spans": [
                        {
                            "traceId": TRACE_ID,
                            "spanId": SPAN_ID,
                            "parentSpanId": PARENT_ID,
                            "name": "GET /",
                            "kind": 2,
                            "startTimeUnixNano": "1544712660000000000",
                            "endTimeUnixNano": 1544712661000000000,
                            "attributes": [
                                {"key": "count", "value": {"intValue": "7"}},
                                {
                                    "key": "raw",
                                    "value": {"bytesValue": base64.b64encode(b"\x00\xff").decode()},
                                },
                            ],
                            "links": [{"traceId": TRACE_ID, "spanId": PARENT_ID}],
                            "status": {"code": 2, "message": "bad"},
                            "aFieldOfTomorrow": {"x": [1]},
                        }
                    ],
                }
            ],
        }
    ]
}


def read(body: Any, topic: str = topics.SPANS) -> TracesData:
    return TracesData.FromString(to_protobuf(topic, json.dumps(body).encode()).payload)


def test_every_field_of_a_span() -> None:
    span = read(CAMEL).resource_spans[0].scope_spans[0].spans[0]
    assert (span.trace_id, span.span_id, span.parent_span_id) == tuple(
        map(bytes.fromhex, (TRACE_ID, SPAN_ID, PARENT_ID))
    )
    assert (span.name, span.kind, span.status.code) == (
        "GET /",
        Span.SPAN_KIND_SERVER,
        Status.STATUS_CODE_ERROR,
    )
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (1544712660000000000, 1544712661000000000)
    assert (span.attributes[0].value.int_value, span.attributes[1].value.bytes_value) == (7, b"\x00\xff")
    assert (span.links[0].trace_id, span.links[0].span_id) == (
        bytes.fromhex(TRACE_ID),
        bytes.fromhex(PARENT_ID),
    )


def test_snake_case_and_enum_names_are_the_same_request() -> None:
    text = json.dumps(CAMEL)
    for camel, snake in {
        "resourceSpans": "resource_spans", "scopeSpans": "scope_spans", "traceId": "trace_id", "spanId": "span_id",
        "parentSpanId": "parent_span_id", "startTimeUnixNano": "start_time_unix_nano", "endTimeUnixNano": "end_time_unix_nano",
        "stringValue": "string_value", "intValue": "int_value", "bytesValue": "bytes_value",
    }.items():  # fmt: skip
        text = text.replace(f'"{camel}"', f'"{snake}"')
    text = text.replace('"kind": 2', '"kind": "SPAN_KIND_SERVER"').replace(
        '"code": 2', '"code": "STATUS_CODE_ERROR"'
    )
    assert read(json.loads(text)) == read(CAMEL)


def test_ids_of_log_records_and_exemplars() -> None:
    logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"traceId": TRACE_ID, "spanId": SPAN_ID}]}]}]}
    record = (
        LogsData.FromString(to_protobuf(topics.LOGS, json.dumps(logs).encode()).payload)
        .resource_logs[0]
        .scope_logs[0]
        .log_records[0]
    )
    assert (record.trace_id, record.span_id) == (bytes.fromhex(TRACE_ID), bytes.fromhex(SPAN_ID))
    point = {"exemplars": [{"traceId": TRACE_ID, "spanId": SPAN_ID, "asDouble": "NaN"}]}
    for kind in ("gauge", "sum", "histogram", "exponentialHistogram"):
        metrics = {
            "resourceMetrics": [
                {"scopeMetrics": [{"metrics": [{"name": "m", kind: {"dataPoints": [point]}}]}]}
            ]
        }
        data = MetricsData.FromString(to_protobuf(topics.METRICS, json.dumps(metrics).encode()).payload)
        assert TRACE_ID in str(MessageToDict(data)) or bytes.fromhex(TRACE_ID) in data.SerializeToString()


def test_absent_and_short_ids_pass_for_the_split_to_reject() -> None:
    spans = read(
        {
            "resourceSpans": [
                {"scopeSpans": [{"spans": [{"traceId": "abcd"}, {"name": "x"}, {"traceId": ""}]}]}
            ]
        }
    )
    assert [span.trace_id for span in spans.resource_spans[0].scope_spans[0].spans] == [b"\xab\xcd", b"", b""]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"1", "not an object"),
        (b'{"resourceSpans": {"a": 1}}', "not OTLP/JSON"),
        (
            b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xy"}]}]}]}',
            "traceId 'xy' is not hexadecimal",
        ),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": 5}]}]}]}', "not OTLP/JSON"),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": -1}]}]}]}', "not OTLP/JSON"),
        (
            b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": 1e999}]}]}]}',
            "not JSON|not OTLP/JSON",
        ),
        (
            b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": 36893488147419103232}]}]}]}',
            "not OTLP/JSON",
        ),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"kind": 1e30}]}]}]}', "not OTLP/JSON"),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"kind": NaN}]}]}]}', "not JSON"),
        (b'{"resourceSpans": ' + b"[" * 1000 + b"]" * 1000 + b"}", "nested more than 100 deep"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_what_is_wrong_is_said(body: bytes, message: str) -> None:
    with pytest.raises(MalformedOtlp, match=message):
        to_protobuf(topics.SPANS, body)


def nested(depth: int) -> bytes:
    """A span with an attribute whose value nests so deep."""
    value: dict[str, Any] = {"stringValue": "x"}
    for _ in range(depth):
        value = {"arrayValue": {"values": [value]}}
    span = {"traceId": TRACE_ID, "spanId": SPAN_ID, "attributes": [{"key": "k", "value": value}]}
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()


@pytest.mark.parametrize("depth", [30, 44, 45, 46, 47, 48, 49, 100, 200, 300])
def test_values_nest_only_so_deep(depth: int) -> None:
    mended = to_protobuf(topics.SPANS, nested(depth))
    assert (mended.repaired, mended.dropped) == (int(b"meshflow.cut" in mended.payload), 0)
    assert mended.repaired or depth < 50
    assert not mended.repaired or depth > 44
    assert TracesData.FromString(mended.payload).resource_spans[0].scope_spans[0].spans[0].span_id


def test_an_error_repeats_little_of_the_request() -> None:
    with pytest.raises(MalformedOtlp) as error:
        to_protobuf(topics.SPANS, json.dumps({"resourceSpans": [{"schemaUrl": ["x" * 100_000]}]}).encode())
    assert len(str(error.value)) < 1000


names = st.sampled_from(["resourceSpans", "scopeSpans", "spans", "traceId", "links", "kind"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner),
    max_leaves=20,
)


@given(st.sampled_from(topics.TOPICS), json_values)
def test_any_json_is_converted_or_malformed(topic: str, value: Any) -> None:
    try:
        to_protobuf(topic, json.dumps(value).encode())
    except MalformedOtlp:
        return
