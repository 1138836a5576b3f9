"""MetricsData -> rows of ``otel_metrics_*``, on opentelemetry-proto.

Columns as the OpenTelemetry Collector's ClickHouse exporter fills them
(exporter/clickhouseexporter/internal/metrics); but ids of exemplars are "" where they are missing. Envoy's
stat sink writes ``start_time_unix_nano`` in microseconds: such starts are set right.
"""

from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.proto.metrics.v1.metrics_pb2 import Exemplar, Metric, MetricsData

from schemas.otlp.columns import Context, Contexts, Items, Rows, clamp_time, hex_id, parse
from schemas.otlp.text import attribute_texts

_HEAD = ("MetricName", "MetricDescription", "MetricUnit", "Attributes", "StartTimeUnix", "TimeUnix", "Flags")
_EXEMPLARS = (
    "Exemplars.FilteredAttributes", "Exemplars.TimeUnix", "Exemplars.Value", "Exemplars.SpanId", "Exemplars.TraceId",
)  # fmt: skip
_TOTALS = ("Count", "Sum")
_EXTREMES = ("Min", "Max")
_COLUMNS = {
    "gauge": (*_HEAD, "Value", *_EXEMPLARS),
    "sum": (*_HEAD, "Value", *_EXEMPLARS, "AggregationTemporality", "IsMonotonic"),
    "histogram": (*_HEAD, *_TOTALS, *_EXTREMES, "BucketCounts", "ExplicitBounds", *_EXEMPLARS, "AggregationTemporality"),
    "exponential_histogram": (
        *_HEAD, *_TOTALS, *_EXTREMES, "Scale", "ZeroCount", "PositiveOffset", "PositiveBucketCounts", "NegativeOffset",
        "NegativeBucketCounts", *_EXEMPLARS, "AggregationTemporality",
    ),
    "summary": (*_HEAD, *_TOTALS, "ValueAtQuantiles.Quantile", "ValueAtQuantiles.Value"),
}  # fmt: skip
_NO_EXEMPLARS: tuple[Any, ...] = ((), (), (), (), ())
_MICROSECONDS_BELOW = 10**16  # as nanoseconds: April 1970; as microseconds: the year 2286


def decode_points(payloads: Sequence[bytes]) -> dict[str, Items]:
    """Data points of MetricsData payloads (b"" allowed) by table, one row each; all five tables are there.

    Raises MalformedOtlp with ``record``.
    """
    contexts = Contexts()
    tables = {kind: Rows(f"otel_metrics_{kind}", columns) for kind, columns in _COLUMNS.items()}
    for message in parse(MetricsData, payloads):
        for of_resource in message.resource_metrics:
            for of_scope in of_resource.scope_metrics:
                context = contexts.add(
                    of_resource.resource, of_resource.schema_url, of_scope.scope, of_scope.schema_url
                )
                for metric in of_scope.metrics:
                    kind = metric.WhichOneof("data")
                    if kind is not None:
                        _add_points(tables[kind], context, metric, kind)
    return {f"otel_metrics_{kind}": rows.items(contexts) for kind, rows in tables.items()}


def _add_points(rows: Rows, context: Context, metric: Metric, kind: str) -> None:
    data = getattr(metric, kind)
    temporality = getattr(data, "aggregation_temporality", 0)
    monotonic = getattr(data, "is_monotonic", False)
    series = f"{metric.name}\0{metric.unit}\0{kind}\0{temporality}\0{monotonic}".encode()
    values_of = _VALUES[kind]
    for point in data.data_points:
        head = (
            metric.name, metric.description, metric.unit, attribute_texts(point.attributes),
            _start_ns(point.start_time_unix_nano, point.time_unix_nano), clamp_time(point.time_unix_nano), point.flags,
        )  # fmt: skip
        rows.add(context, context.identity(series, point.SerializeToString()), head + values_of(point, data))


def _start_ns(start: int, time_ns: int) -> int:
    if start < _MICROSECONDS_BELOW and start * 1_000 <= time_ns:
        return start * 1_000
    return clamp_time(start)


def _number(point: Any, data: Any) -> tuple[Any, ...]:  # noqa: ARG001  # called as its siblings are
    return _value(point), *_exemplars(point.exemplars)


def _sum(point: Any, data: Any) -> tuple[Any, ...]:
    return *_number(point, data), data.aggregation_temporality, data.is_monotonic


def _histogram(point: Any, data: Any) -> tuple[Any, ...]:
    return (
        point.count, point.sum, point.min, point.max, point.bucket_counts, point.explicit_bounds,
        *_exemplars(point.exemplars), data.aggregation_temporality,
    )  # fmt: skip


def _exponential_histogram(point: Any, data: Any) -> tuple[Any, ...]:
    return (
        point.count, point.sum, point.min, point.max, point.scale, point.zero_count,
        point.positive.offset, point.positive.bucket_counts, point.negative.offset, point.negative.bucket_counts,
        *_exemplars(point.exemplars), data.aggregation_temporality,
    )  # fmt: skip


def _summary(point: Any, data: Any) -> tuple[Any, ...]:  # noqa: ARG001  # called as its siblings are
    quantiles = point.quantile_values
    return point.count, point.sum, [each.quantile for each in quantiles], [each.value for each in quantiles]


_VALUES: dict[str, Callable[[Any, Any], tuple[Any, ...]]] = {
    "gauge": _number,
    "sum": _sum,
    "histogram": _histogram,
    "exponential_histogram": _exponential_histogram,
    "summary": _summary,
}


def _value(point: Any) -> float:
    """A NumberDataPoint's or Exemplar's value, 0 when it has none."""
    return float(point.as_int) if point.WhichOneof("value") == "as_int" else point.as_double


def _exemplars(exemplars: Sequence[Exemplar]) -> tuple[Any, ...]:
    if not exemplars:
        return _NO_EXEMPLARS
    return (
        [attribute_texts(each.filtered_attributes) for each in exemplars],
        [clamp_time(each.time_unix_nano) for each in exemplars],
        [_value(each) for each in exemplars],
        [hex_id(each.span_id, 8) for each in exemplars],
        [hex_id(each.trace_id, 16) for each in exemplars],
    )
