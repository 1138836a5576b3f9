"""Kept spans as rows: one hand-made trace column by column, then orders and weights."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from processors.cutting import cut
from processors.settings import HeadSampling
from processors.spans.sampling.sampler import Sampler
from processors.spans.sampling.settings import SamplingSettings
from processors.spans.sampling.threshold import NEVER
from processors.spans.traces import write_traces
from processors.spans.weights import MOST
from schemas import otlp
from schemas.hexadecimal import hex_span_ids, hex_trace_ids
from schemas.tables import SCHEMAS
from tests.support.span_batches import frame

LOG_TIME = 1_800_000_000
START = 1_700_000_000_123_456_789


def text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def span(number: int, trace: int = 7, **fields: object) -> Span:
    given = {
        "start_time_unix_nano": START + number,
        "end_time_unix_nano": START + number + 1_000,
        "name": f"op{number % 3}",
        **fields,
    }
    return Span(trace_id=trace.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"), **given)  # type: ignore[arg-type]  # fields of Span


def message(*spans: Span, service: str = "shop") -> bytes:
    scope = InstrumentationScope(name="envoy", version="1.40")
    of_scope = ScopeSpans(scope=scope, spans=spans)
    resource = Resource(attributes=[text("service.name", service), text("zone", "z1")])
    return TracesData(
        resource_spans=[ResourceSpans(resource=resource, scope_spans=[of_scope])]
    ).SerializeToString()


def rows(
    payloads: list[bytes],
    policy: dict[str, object] | None = None,
    head_sampling: Sequence[HeadSampling] = (),
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """otel_traces and otel_traces_trace_id_ts of what a policy (default: all) keeps."""
    settings = SamplingSettings.model_validate(
        {"policies": [{"name": "p", **(policy or {"type": "always_sample"})}]}
    )
    sampler = Sampler(settings, 1_000_000_000, 1)
    batch = otlp.decode_spans(payloads)
    decided = sampler.decide([sampler.summarize(batch, frame(batch), 5)], 5).rename({"error": "trace_error"})
    kept = frame(batch).join(decided, on=["trace_hi", "trace_lo"])
    shared = write_traces(batch, kept, payloads, LOG_TIME, head_sampling=head_sampling)
    tables = {name: pa.concat_tables(cut(table, SCHEMAS[name])) for name, table in shared.items()}
    for name, table in tables.items():
        assert table.schema == SCHEMAS[name]
        table.validate(full=True)
    return pl.DataFrame(tables["otel_traces"]), pl.DataFrame(tables["otel_traces_trace_id_ts"])


def kept_of(percentage: float) -> dict[str, object]:
    return {"type": "probabilistic", "probabilistic": {"sampling_percentage": percentage}}


def test_a_span_column_by_column() -> None:
    whole = span(
        0x0102030405060708,
        trace=0x000102030405060708090A0B0C0D0E0F,
        parent_span_id=bytes.fromhex("a0a1a2a3a4a5a6a7"),
        trace_state="rojo=1",
        name="ingress",
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=START,
        end_time_unix_nano=START + 42,
        status=Status(code=Status.STATUS_CODE_ERROR, message="boom"),
        attributes=[text("http.method", "GET"), KeyValue(key="n", value=AnyValue(int_value=3))],
        events=[Span.Event(time_unix_nano=START + 1, name="retry", attributes=[text("a", "b")])],
        links=[
            Span.Link(
                trace_id=bytes(15) + b"\1",
                span_id=bytes(7) + b"\2",
                trace_state="x=y",
                attributes=[text("c", "d")],
            )
        ],
    )
    traces, times = rows([message(whole)])
    (row,) = traces.to_dicts()
    assert traces["Timestamp"].dt.epoch("ns").to_list() == [START]
    assert row["TraceId"] == "000102030405060708090a0b0c0d0e0f"
    assert row["SpanId"] == "0102030405060708"
    assert row["ParentSpanId"] == "a0a1a2a3a4a5a6a7"
    assert row["TraceState"] == "ot=th:0,rojo=1"
    assert (row["SpanName"], row["SpanKind"], row["ServiceName"]) == ("ingress", "Server", "shop")
    assert row["ResourceAttributes"] == {"service.name": "shop", "zone": "z1"}
    assert (row["ScopeName"], row["ScopeVersion"]) == ("envoy", "1.40")
    assert row["SpanAttributes"] == {"http.method": "GET", "n": "3"}
    assert (row["Duration"], row["StatusCode"], row["StatusMessage"]) == (42, "Error", "boom")
    assert (row["Events.Name"], row["Events.Attributes"]) == (["retry"], [{"a": "b"}])
    assert (row["Links.TraceId"], row["Links.SpanId"]) == ([bytes(15).hex() + "01"], [bytes(7).hex() + "02"])
    assert (row["KeepReason"], row["SampleRate"], row["SampleWeight"]) == ("p", 1.0, 1)
    assert (row["TraceError"], row["LogTime"]) == (1, LOG_TIME)
    assert times.rows() == [("000102030405060708090a0b0c0d0e0f", START // 10**9, START // 10**9, LOG_TIME)]


def test_a_root_has_no_parent_id() -> None:
    traces, _ = rows([message(span(1))])
    assert traces["ParentSpanId"].to_list() == [""]


def test_trace_times_are_those_of_the_kept_spans() -> None:
    late = span(2, start_time_unix_nano=START + 5_000_000_000, end_time_unix_nano=START + 9_000_000_000)
    _, times = rows([message(span(1), late, span(3, trace=8))])
    start = START // 10**9
    assert times.select("Start", "End").rows() == [(start, start + 5), (start, start)]


@pytest.mark.parametrize(
    ("state", "merged", "rate"),
    [
        ("", "ot=th:8", 2.0),
        (
            "ot=th:c",
            "ot=th:c",
            4.0,
        ),  # a sampler in front of us kept one in four: the stronger threshold counts
        ("ot=th:4;rv:ffffffffffff00,x=y", "ot=th:8;rv:ffffffffffff00,x=y", 2.0),
        ("ot=th:ffffffffffffff", "ot=th:8", 2.0),  # can't have kept this trace: ignored
        ("ot=th:ffffffffffffff;rv:ffffffffffffff", "ot=th:ffffffffffffff;rv:ffffffffffffff", MOST),
    ],
)
def test_weights_respect_head_sampling(state: str, merged: str, rate: float) -> None:
    traces, _ = rows([message(span(1, trace=NEVER - 256, trace_state=state))], kept_of(50))
    assert traces.select("TraceState", "SampleRate", "SampleWeight").rows() == [(merged, rate, int(rate))]


@pytest.mark.parametrize(
    ("state", "percentage", "rate"),
    [
        ("", 100, 100.0),
        ("", 50, 200.0),  # what we keep of one in a hundred
        ("ot=th:c", 100, 100.0),  # the rule says it all, the trace state a part
        ("ot=th:c", 50, 100.0),  # all that passed one in four passes one in two
        ("ot=th:8", 25, 200.0),  # half of what passed one in two passes one in four
        ("ot=th:ffffffffffffff", 50, 200.0),  # not true
        ("ot=th:ffffffffffffff;rv:ffffffffffffff", 50, 100.0),
    ],
)
def test_rates_of_spans_that_a_rule_matches(state: str, percentage: float, rate: float) -> None:
    rules = (
        HeadSampling(service="shop", probability=0.01),
        HeadSampling(probability=0.5),
    )
    payloads = [
        message(span(number, trace=NEVER - 256, trace_state=state), service=service)
        for number, service in enumerate(("shop", "cart"), start=1)
    ]
    traces, _ = rows(payloads, kept_of(percentage), rules)
    found = dict(traces.select("ServiceName", "SampleRate").rows())
    assert found["shop"] == rate
    assert found["cart"] == rate / 50


@pytest.mark.parametrize(
    ("probability", "rate", "weight"), [(0.08, 12.5, 13), (0.4, 2.5, 3), (0.7, 1 / 0.7, 1), (1, 1, 1)]
)
def test_whole_weights_are_rounded_half_up(probability: float, rate: float, weight: int) -> None:
    traces, _ = rows([message(span(1))], None, [HeadSampling(probability=probability)])
    assert traces["SampleRate"].to_list() == [pytest.approx(rate, rel=1e-6)]
    assert traces["SampleWeight"].to_list() == [weight]


def test_whole_weights_do_not_overflow() -> None:
    traces, _ = rows([message(span(1, trace=NEVER - 1))], kept_of(1e-14), [HeadSampling(probability=1e-6)])
    assert traces["SampleWeight"].to_list() == [2**53]


@given(st.lists(st.integers(1, 2**63), min_size=1, max_size=20, unique=True), st.integers(0, 2**32))
def test_rows_do_not_depend_on_the_order_of_arrival(numbers: list[int], seed: int) -> None:
    messages = [message(span(number, trace=1 + number % 5), service=f"s{number % 2}") for number in numbers]
    expected = rows(messages)
    random.Random(seed).shuffle(messages)
    merged = b"".join(messages[: len(messages) // 2])  # TracesData end to end is TracesData
    shuffled = rows([merged, *messages[len(messages) // 2 :]])
    assert all(frame.equals(other) for frame, other in zip(expected, shuffled, strict=True))
    order = expected[0].select("ServiceName", "SpanName", "Timestamp", "TraceId", "SpanId")
    assert order.equals(order.sort(pl.all()))


def test_nothing_kept_is_no_rows() -> None:
    traces, times = rows([message(span(1))], {"type": "error"})
    assert traces.is_empty()
    assert times.is_empty()


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))))
def test_hex_ids(ids: list[tuple[int, int]]) -> None:
    hi, lo = np.array(ids, dtype=np.uint64).reshape(-1, 2).T
    assert hex_trace_ids(hi, lo).to_pylist() == [
        f"{high:016x}{low:016x}" if high or low else "" for high, low in ids
    ]
    assert hex_span_ids(lo).to_pylist() == [f"{low:016x}" if low else "" for _, low in ids]


def test_times_are_utc() -> None:
    traces, _ = rows([message(span(1))])
    assert traces["Timestamp"][0].replace(microsecond=0) == datetime.fromtimestamp(START // 10**9, UTC)
