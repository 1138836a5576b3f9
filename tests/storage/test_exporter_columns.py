"""The columns that the OpenTelemetry Collector's ClickHouse exporter inserts, by name: what Grafana and
ClickStack read.

Written down from what its INSERT statements name (exporter/clickhouseexporter/internal/sqltemplates), not
from our own tables.
"""

import pytest

from schemas.tables import SCHEMAS

POINT = """ResourceAttributes ResourceSchemaUrl ScopeName ScopeVersion ScopeAttributes ScopeDroppedAttrCount ScopeSchemaUrl ServiceName
    MetricName MetricDescription MetricUnit Attributes StartTimeUnix TimeUnix Flags"""
EXEMPLARS = (
    "Exemplars.FilteredAttributes Exemplars.TimeUnix Exemplars.Value Exemplars.SpanId Exemplars.TraceId"
)
DISTRIBUTION = f"{POINT} {EXEMPLARS} Count Sum Min Max AggregationTemporality"
EXPORTER = {
    "otel_traces": """Timestamp TraceId SpanId ParentSpanId TraceState SpanName SpanKind ServiceName ResourceAttributes ScopeName
        ScopeVersion SpanAttributes Duration StatusCode StatusMessage Events.Timestamp Events.Name Events.Attributes Links.TraceId
        Links.SpanId Links.TraceState Links.Attributes""",
    "otel_logs": """Timestamp TraceId SpanId TraceFlags SeverityText SeverityNumber ServiceName Body ResourceSchemaUrl ResourceAttributes
        ScopeSchemaUrl ScopeName ScopeVersion ScopeAttributes LogAttributes EventName""",
    "otel_metrics_gauge": f"{POINT} {EXEMPLARS} Value",
    "otel_metrics_sum": f"{POINT} {EXEMPLARS} Value AggregationTemporality IsMonotonic",
    "otel_metrics_histogram": f"{DISTRIBUTION} BucketCounts ExplicitBounds",
    "otel_metrics_exponential_histogram": f"""{DISTRIBUTION} Scale ZeroCount PositiveOffset PositiveBucketCounts NegativeOffset
        NegativeBucketCounts""",
    "otel_metrics_summary": f"{POINT} Count Sum ValueAtQuantiles.Quantile ValueAtQuantiles.Value",
}
OURS = {"otel_traces": {"KeepReason", "SampleRate", "SampleWeight", "TraceError", "LogTime"}}


@pytest.mark.parametrize("table", EXPORTER)
def test_ours_are_the_exporters_and_a_few_more(table: str) -> None:
    assert set(SCHEMAS[table].names) == set(EXPORTER[table].split()) | OURS.get(table, {"LogTime"})
