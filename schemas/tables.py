"""Columns of every table that blocks go to: the one list that Arrow blocks, inserts and DDL are built from or
tested against.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from schemas.counters import COUNTERS
from schemas.records import Record, TopicPartition
from schemas.spans import ATTRIBUTES, DETAIL_SCHEMA

NANOSECONDS = pa.timestamp("ns", tz="UTC")
SLOT = pa.uint32()  # DateTime: seconds since 1970
HISTOGRAM = pa.map_(pa.int16(), pa.uint64())

_TEXT = pa.string()
_COUNT = pa.uint64()
_ESTIMATE = (
    pa.float64()
)  # a sum of head weights (processors.spans.weights), multiples of 2^-20: exact in any order
_LOG_TIME = SLOT  # start of the pane: what otel_* tables are partitioned and expire by, whatever times the sender wrote


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])


_RED_KEYS = {
    "slot": SLOT,  # span end, to the level's width
    "cluster": _TEXT,
    "namespace": _TEXT,
    "service": _TEXT,
    "version": _TEXT,
    "operation": _TEXT,
    "kind": _TEXT,  # Server, Client, Producer, Consumer, Internal, Unspecified
    "status_class": _TEXT,  # 1xx .. 5xx where there is an HTTP status, else ok | error
    "http_status": pa.uint16(),
    "response_flags": _TEXT,
    "late": pa.uint8(),  # 1: came after its hour was rolled up, and is in every level itself
    "entered": pa.uint8(),  # 1: requests entered a node (service, pod) here, 2: they did not, 0: a row of before, by its kind
    "apart": _TEXT,  # "" | injected (a fault filter's) | mirrored: counted apart from rates
    "protocol": _TEXT,  # http | grpc | ""
    "dimensions": ATTRIBUTES,  # processing.dimensions: name -> value
}
_RED_VALUES = {
    "requests": _COUNT,
    "errors": _COUNT,
    "duration_ns_sum": _COUNT,
    "duration_ns_max": _COUNT,
    "duration_histogram": HISTOGRAM,
    "exemplar_trace_id": _TEXT,  # 32 hex digits, "" none
    "requests_estimated": _ESTIMATE,
    "errors_estimated": _ESTIMATE,
    "request_bytes": _COUNT,  # of those that say so
    "response_bytes": _COUNT,
    "roots": _COUNT,  # of requests: spans without a parent
}

_EDGE_KEYS = {
    "slot": SLOT,  # end of the span that shows the call
    "client_cluster": _TEXT,
    "client_namespace": _TEXT,
    "client_service": _TEXT,
    "client_version": _TEXT,
    "server_cluster": _TEXT,
    "server_namespace": _TEXT,
    "server_service": _TEXT,
    "server_version": _TEXT,
    "connection": _TEXT,  # service | database | queue | outside | unknown | external: what stands at the virtual end, if one does
    "upstream_cluster": _TEXT,  # the caller's Envoy cluster, "" when it has none
    "response_flags": _TEXT,
    "late": pa.uint8(),
    "apart": _TEXT,  # as RED's
    "protocol": _TEXT,
    "dimensions": ATTRIBUTES,
}
_EDGE_VALUES = {
    "calls": _COUNT,  # attempts that reached the server
    "unsent": _COUNT,  # refused at the caller
    "unanswered": _COUNT,  # sent, failed, and nothing of them shows at the server
    "errors": _COUNT,  # of all three
    "retries": _COUNT,
    "client_histogram": HISTOGRAM,
    "server_histogram": HISTOGRAM,
    "exemplar_trace_id": _TEXT,
    "calls_estimated": _ESTIMATE,
    "errors_estimated": _ESTIMATE,
    "request_bytes": _COUNT,
    "response_bytes": _COUNT,
    "overhead_histogram": HISTOGRAM,  # caller's duration less callee's, of calls that show at both ends
}

_DETAILS = {field.name: field.type for field in DETAIL_SCHEMA}

_METRIC_HEAD = {
    "ResourceAttributes": ATTRIBUTES,
    "ResourceSchemaUrl": _TEXT,
    "ScopeName": _TEXT,
    "ScopeVersion": _TEXT,
    "ScopeAttributes": ATTRIBUTES,
    "ScopeDroppedAttrCount": pa.uint32(),
    "ScopeSchemaUrl": _TEXT,
    "ServiceName": _TEXT,
    "MetricName": _TEXT,
    "MetricDescription": _TEXT,
    "MetricUnit": _TEXT,
    "Attributes": ATTRIBUTES,
    "StartTimeUnix": NANOSECONDS,
    "TimeUnix": NANOSECONDS,
}
_EXEMPLARS = {
    "Exemplars.FilteredAttributes": pa.list_(ATTRIBUTES),
    "Exemplars.TimeUnix": pa.list_(NANOSECONDS),
    "Exemplars.Value": pa.list_(pa.float64()),
    "Exemplars.SpanId": pa.list_(_TEXT),
    "Exemplars.TraceId": pa.list_(_TEXT),
}
_DISTRIBUTION = {"Count": pa.uint64(), "Sum": pa.float64()}
_EXTREMES = {"Min": pa.float64(), "Max": pa.float64()}

SCHEMAS: dict[str, pa.Schema] = {
    "otel_traces": _schema(
        Timestamp=NANOSECONDS,
        TraceId=_TEXT,
        SpanId=_TEXT,
        ParentSpanId=_TEXT,
        TraceState=_TEXT,
        SpanName=_TEXT,
        SpanKind=_TEXT,  # as RED's kind
        ServiceName=_TEXT,
        ResourceAttributes=ATTRIBUTES,
        ScopeName=_TEXT,
        ScopeVersion=_TEXT,
        SpanAttributes=_DETAILS["SpanAttributes"],
        Duration=pa.uint64(),
        StatusCode=_TEXT,  # Unset, Ok, Error
        StatusMessage=_TEXT,
        **{name: kind for name, kind in _DETAILS.items() if name != "SpanAttributes"},
        KeepReason=_TEXT,  # the name of the policy that kept the trace
        SampleRate=pa.float64(),  # how many spans this one stands for, of all that there were before any sampler
        SampleWeight=pa.uint64(),  # the same as a whole number, for ClickStack
        TraceError=pa.uint8(),  # 1: a span of the trace, within the decision's window, failed (such traces are kept longer)
        LogTime=_LOG_TIME,
    ),
    "otel_traces_trace_id_ts": _schema(TraceId=_TEXT, Start=SLOT, End=SLOT, LogTime=_LOG_TIME),
    "otel_logs": _schema(
        Timestamp=NANOSECONDS,
        TraceId=_TEXT,
        SpanId=_TEXT,
        TraceFlags=pa.uint8(),
        SeverityText=_TEXT,
        SeverityNumber=pa.uint8(),
        ServiceName=_TEXT,
        Body=_TEXT,
        ResourceSchemaUrl=_TEXT,
        ResourceAttributes=ATTRIBUTES,
        ScopeSchemaUrl=_TEXT,
        ScopeName=_TEXT,
        ScopeVersion=_TEXT,
        ScopeAttributes=ATTRIBUTES,
        LogAttributes=ATTRIBUTES,
        EventName=_TEXT,
        LogTime=_LOG_TIME,
    ),
    "otel_metrics_gauge": _schema(
        **_METRIC_HEAD, Value=pa.float64(), Flags=pa.uint32(), **_EXEMPLARS, LogTime=_LOG_TIME
    ),
    "otel_metrics_sum": _schema(
        **_METRIC_HEAD,
        Value=pa.float64(),
        Flags=pa.uint32(),
        **_EXEMPLARS,
        AggregationTemporality=pa.int32(),
        IsMonotonic=pa.bool_(),
        LogTime=_LOG_TIME,
    ),
    "otel_metrics_histogram": _schema(
        **_METRIC_HEAD,
        **_DISTRIBUTION,
        BucketCounts=pa.list_(pa.uint64()),
        ExplicitBounds=pa.list_(pa.float64()),
        **_EXEMPLARS,
        Flags=pa.uint32(),
        **_EXTREMES,
        AggregationTemporality=pa.int32(),
        LogTime=_LOG_TIME,
    ),
    "otel_metrics_exponential_histogram": _schema(
        **_METRIC_HEAD,
        **_DISTRIBUTION,
        Scale=pa.int32(),
        ZeroCount=pa.uint64(),
        PositiveOffset=pa.int32(),
        PositiveBucketCounts=pa.list_(pa.uint64()),
        NegativeOffset=pa.int32(),
        NegativeBucketCounts=pa.list_(pa.uint64()),
        **_EXEMPLARS,
        Flags=pa.uint32(),
        **_EXTREMES,
        AggregationTemporality=pa.int32(),
        LogTime=_LOG_TIME,
    ),
    "otel_metrics_summary": _schema(
        **_METRIC_HEAD,
        **_DISTRIBUTION,
        **{
            "ValueAtQuantiles.Quantile": pa.list_(pa.float64()),
            "ValueAtQuantiles.Value": pa.list_(pa.float64()),
        },
        Flags=pa.uint32(),
        LogTime=_LOG_TIME,
    ),
    **{f"red_{level}": _schema(**_RED_KEYS, **_RED_VALUES) for level in ("10s", "1m", "1h")},
    **{f"edges_{level}": _schema(**_EDGE_KEYS, **_EDGE_VALUES) for level in ("10s", "1m", "1h")},
    **{
        f"{table}_{level}": _schema(slot=SLOT, **counters.columns)
        for table, counters in COUNTERS.items()
        for level in ("10s", "1m", "1h")
    },
    "certificates": _schema(
        **dict.fromkeys(("cluster", "namespace", "service", "instance", "pod"), _TEXT),
        kind=_TEXT,  # leaf | chain | root
        name=_TEXT,  # as its sender calls it, and the listener or upstream that it stands on
        not_after=SLOT,
        first_seen=SLOT,  # time of the point that shows it
        lifetime_s=_COUNT,  # not_after - first_seen where another one was there before; 0: unknown
        log_time=_LOG_TIME,
    ),
    "ledger": _schema(
        time=SLOT,  # start of the pane
        topic=_TEXT,
        partition=pa.uint32(),
        pane=pa.uint64(),
        received=_COUNT,  # = rejected + duplicate + kept + dropped + aggregated + left_out
        rejected=_COUNT,  # refused as invalid by ingest, with an answer to the sender
        refused=_COUNT,  # turned away by ingest because the log was full or away (not in received)
        duplicate=_COUNT,
        kept=_COUNT,
        dropped=_COUNT,
        late=_COUNT,  # of kept + dropped: came after their hour was rolled up
        stored=_COUNT,  # rows of otel_* tables
        lost=_COUNT,  # records that retention removed before they were read
        bytes=_COUNT,  # OTLP bytes of the pane's records
        cut=_COUNT,  # attribute sets and texts that are over processing.attributes, and stored without the rest
        repaired=_COUNT,  # texts that were not UTF-8, stored with U+FFFD, and values that nested too deep, stored as a mark
        redacted=_COUNT,  # attributes dropped, hashed or masked, and texts masked, by storage.redact; what items share once in a pane
        aggregated=_COUNT,  # data points that went into tables of counters
        left_out=_COUNT,  # data points that are neither there nor stored
        unknown=_COUNT,  # of aggregated: counters that added nothing, as their past is not known
    ),
}

RED_KEYS = tuple(_RED_KEYS)
RED_VALUES = tuple(_RED_VALUES)
EDGE_KEYS = tuple(_EDGE_KEYS)
EDGE_VALUES = tuple(_EDGE_VALUES)


class Source(Protocol):
    """Where the rows that a pane gives a table come from, where each is one item of a record."""

    def at(self, row: int) -> tuple[Record, int]:
        """The record of a row, and the number of its item in that record."""

    def only(self, record: Record, items: Collection[int]) -> Record:
        """The record with these of its items alone, unpacked, each within its resource and scope."""


@dataclass(frozen=True, slots=True)
class Block:
    """The rows that one pane of one partition adds to one table; a pure function of the log (invariant 2)."""

    table: str
    tp: TopicPartition
    pane: int
    rows: pa.Table
    """``SCHEMAS[table]``, in an order that is itself a function of the log."""
    clock: str = ""
    """Whose number ``pane`` is: panes of another length or shift have other records under the same number."""
    first_offset: int = 0
    """Of the pane's records: where to look for what the rows were made of."""
    part: str = ""
    """Which of the blocks that a pane's rows were cut into; "": the first one, mostly the only one."""
    source: Source | None = field(default=None, compare=False, repr=False)
    """None: the rows are sums, or of no single item."""
    first_row: int = 0
    """The number of the first of ``rows`` in ``source``."""

    @property
    def token(self) -> str:
        """The block's name, which ClickHouse deduplicates by (invariant 3)."""
        ends = [end for end in (self.clock, self.part) if end]
        return ":".join(map(str, (self.table, *self.tp, self.pane, *ends)))
