"""OTLP messages for tests: strategies of all that SDKs may send, and short ways to write one span."""

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
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
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from schemas.otlp.semantics import PROXY_KEYS, RESOURCE_KEYS, SPAN_KEYS, SPAN_PARTS

TRACE_ID, SPAN_ID = bytes(range(16)), bytes(range(1, 9))
_KEYS = [
    key
    for table in (SPAN_KEYS, SPAN_PARTS, RESOURCE_KEYS, PROXY_KEYS)
    for keys in table.values()
    for key in keys
]

keys = st.sampled_from([*_KEYS, "k"]) | st.text(max_size=5)
uint32s = st.integers(0, 2**32 - 1)
uint64s = st.integers(0, 2**64 - 1)
trace_ids = st.binary(min_size=16, max_size=16) | st.sampled_from([b"", bytes(16), b"short"])
span_ids = st.binary(min_size=8, max_size=8) | st.sampled_from([b"", bytes(8), b"long" * 4])
texts = st.sampled_from(
    [
        "true",
        "200",
        "404",
        "429",
        "503",
        "14",
        "NOT_FOUND",
        "send",
        "receive",
        "create",
        "proxy",
        "-",
        "envoy",
        "grpc",
        "mirror",
        "a-shadow:80",
        "http://a-shadow/",
        "1099511627777",
        "4096",
        "sidecar~1.2.3.4~a-0.b~c",
    ]
) | st.text(max_size=12)
any_values = st.recursive(
    st.builds(AnyValue)
    | st.builds(AnyValue, string_value=texts)
    | st.builds(AnyValue, bool_value=st.booleans())
    | st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1) | st.sampled_from([200, 404]))
    | st.builds(AnyValue, double_value=st.floats())
    | st.builds(AnyValue, bytes_value=st.binary(max_size=5)),
    lambda inner: (
        st.builds(AnyValue, array_value=st.builds(ArrayValue, values=st.lists(inner, max_size=3)))
        | st.builds(
            AnyValue,
            kvlist_value=st.builds(
                KeyValueList,
                values=st.lists(st.builds(KeyValue, key=st.text(max_size=3), value=inner), max_size=3),
            ),
        )
    ),
    max_leaves=5,
)
attributes = st.lists(st.builds(KeyValue, key=keys, value=any_values), max_size=6)
events = st.builds(
    Span.Event, time_unix_nano=uint64s, name=texts, attributes=attributes, dropped_attributes_count=uint32s
)
links = st.builds(
    Span.Link, trace_id=trace_ids, span_id=span_ids, trace_state=texts, attributes=attributes, flags=uint32s
)
spans = st.builds(
    Span,
    trace_id=trace_ids,
    span_id=span_ids,
    parent_span_id=span_ids,
    trace_state=texts,
    flags=uint32s,
    name=texts,
    kind=st.integers(-1, 7),
    start_time_unix_nano=uint64s | st.integers(10**18, 10**18 + 10**12),
    end_time_unix_nano=uint64s | st.integers(10**18, 10**18 + 10**12),
    attributes=attributes,
    dropped_attributes_count=uint32s,
    events=st.lists(events, max_size=2),
    links=st.lists(links, max_size=2),
    status=st.builds(Status, message=texts, code=st.integers(-1, 4)),
)
log_records = st.builds(
    LogRecord,
    trace_id=trace_ids,
    span_id=span_ids,
    body=any_values,
    attributes=attributes,
    severity_text=texts,
    event_name=texts,
)
resources = st.builds(Resource, attributes=attributes)
scopes = st.builds(InstrumentationScope, name=texts, version=texts, attributes=attributes)
scope_spans = st.builds(ScopeSpans, scope=scopes, spans=st.lists(spans, max_size=3), schema_url=texts)
scope_logs = st.builds(
    ScopeLogs, scope=scopes, log_records=st.lists(log_records, max_size=3), schema_url=texts
)
traces = st.builds(
    TracesData,
    resource_spans=st.lists(
        st.builds(
            ResourceSpans, resource=resources, scope_spans=st.lists(scope_spans, max_size=2), schema_url=texts
        ),
        max_size=2,
    ),
).map(lambda message: message.SerializeToString())
logs = st.builds(
    LogsData,
    resource_logs=st.lists(
        st.builds(
            ResourceLogs, resource=resources, scope_logs=st.lists(scope_logs, max_size=2), schema_url=texts
        ),
        max_size=2,
    ),
).map(lambda message: message.SerializeToString())

_doubles = st.floats() | st.sampled_from([0.0, 1.5])
_exemplars = st.builds(
    Exemplar, time_unix_nano=uint64s, trace_id=trace_ids, span_id=span_ids, filtered_attributes=attributes
)
_point: dict[str, Any] = {
    "attributes": attributes,
    "start_time_unix_nano": uint64s | st.integers(0, 10**16),
    "time_unix_nano": uint64s,
    "flags": uint32s,
}
_sampled = {**_point, "exemplars": st.lists(_exemplars, max_size=2)}
_numbers = st.builds(NumberDataPoint, as_double=_doubles, **_sampled) | st.builds(
    NumberDataPoint, as_int=st.integers(-(2**63), 2**63 - 1), **_sampled
)
_totals = {"count": uint64s, "sum": _doubles}
_counts = st.lists(uint64s, max_size=3)
_buckets = st.builds(
    ExponentialHistogramDataPoint.Buckets, offset=st.integers(-(2**31), 2**31 - 1), bucket_counts=_counts
)
_temporality = {"aggregation_temporality": st.integers(-1, 4)}


def _lists(points: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(points, max_size=3)


_data = st.one_of(
    st.builds(Gauge, data_points=_lists(_numbers)).map(lambda data: {"gauge": data}),
    st.builds(Sum, data_points=_lists(_numbers), is_monotonic=st.booleans(), **_temporality).map(
        lambda data: {"sum": data}
    ),
    st.builds(
        Histogram,
        data_points=_lists(
            st.builds(
                HistogramDataPoint,
                bucket_counts=_counts,
                explicit_bounds=st.lists(_doubles, max_size=3),
                min=_doubles,
                max=_doubles,
                **_totals,
                **_sampled,
            )
        ),
        **_temporality,
    ).map(lambda data: {"histogram": data}),
    st.builds(
        ExponentialHistogram,
        data_points=_lists(
            st.builds(
                ExponentialHistogramDataPoint,
                scale=st.integers(-(2**31), 2**31 - 1),
                zero_count=uint64s,
                positive=_buckets,
                negative=_buckets,
                **_totals,
                **_sampled,
            )
        ),
        **_temporality,
    ).map(lambda data: {"exponential_histogram": data}),
    st.builds(
        Summary,
        data_points=_lists(
            st.builds(
                SummaryDataPoint,
                quantile_values=st.lists(
                    st.builds(SummaryDataPoint.ValueAtQuantile, quantile=_doubles, value=_doubles), max_size=2
                ),
                **_totals,
                **_point,
            )
        ),
    ).map(lambda data: {"summary": data}),
)
scope_metrics = st.builds(
    ScopeMetrics,
    scope=scopes,
    metrics=st.lists(
        st.builds(
            lambda data, **own: Metric(**own, **data), _data, name=texts, description=texts, unit=texts
        ),
        max_size=2,
    ),
    schema_url=texts,
)
metrics = st.builds(
    MetricsData,
    resource_metrics=st.lists(
        st.builds(
            ResourceMetrics,
            resource=resources,
            scope_metrics=st.lists(scope_metrics, max_size=2),
            schema_url=texts,
        ),
        max_size=2,
    ),
).map(lambda message: message.SerializeToString())


def any_value(value: Any) -> AnyValue:
    """A value of the kind that Python's type says."""
    match value:
        case None:
            return AnyValue()
        case bool():
            return AnyValue(bool_value=value)
        case str():
            return AnyValue(string_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case list():
            return AnyValue(array_value=ArrayValue(values=map(any_value, value)))
    return AnyValue(kvlist_value=KeyValueList(values=key_values(value)))


def key_values(pairs: Mapping[str, Any] | list[tuple[str, Any]]) -> list[KeyValue]:
    """Attributes; a list of pairs may repeat a key."""
    items = pairs.items() if isinstance(pairs, Mapping) else pairs
    return [KeyValue(key=key, value=any_value(value)) for key, value in items]


def make_span(attributes: Mapping[str, Any] | list[tuple[str, Any]] = {}, **fields: Any) -> Span:  # noqa: B006 - never changed
    """A span with valid ids unless ``fields`` say otherwise."""
    return Span(**{"trace_id": TRACE_ID, "span_id": SPAN_ID, "attributes": key_values(attributes), **fields})


def make_traces(*spans: Span, resource: Mapping[str, Any] = {}) -> bytes:
    """A TracesData with one resource and scope."""
    scope_spans = ScopeSpans(scope=InstrumentationScope(name="scope", version="1"), spans=spans)
    return TracesData(
        resource_spans=[
            ResourceSpans(resource=Resource(attributes=key_values(resource)), scope_spans=[scope_spans])
        ]
    ).SerializeToString()
