"""Points of a few series, plain objects, as OTLP and as a PointBatch."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb

from schemas import otlp
from schemas.points import PointBatch

DELTA, CUMULATIVE = 1, 2


class Plain(NamedTuple):
    """A data point."""

    series: str
    """Its value of the attribute ``series``."""
    start_ns: int
    time_ns: int
    value: float
    """Of a sum, or the count of a distribution."""
    kind: str = "sum"
    temporality: int = CUMULATIVE
    monotonic: bool = True
    flags: int = 0
    sum: float = 0.0
    counts: tuple[int, ...] = ()
    negative_counts: tuple[int, ...] = ()
    bounds: tuple[float, ...] = ()
    scale: int = 0
    offset: int = 0
    zero_count: int = 0


def payload_of(points: Sequence[Plain], name: str = "m") -> bytes:
    """MetricsData, a metric a point."""
    metrics = [_metric(point, name) for point in points]
    data = pb.MetricsData(
        resource_metrics=[pb.ResourceMetrics(scope_metrics=[pb.ScopeMetrics(metrics=metrics)])]
    )
    return data.SerializeToString()


def batch_of(points: Sequence[Plain]) -> PointBatch:
    """One row a point, in order."""
    return otlp.decode_points([payload_of(points)])


def _metric(point: Plain, name: str) -> pb.Metric:
    common: dict[str, Any] = {
        "start_time_unix_nano": point.start_ns,
        "time_unix_nano": point.time_ns,
        "flags": point.flags,
        "attributes": [KeyValue(key="series", value=AnyValue(string_value=point.series))],
    }
    temporality: Any = point.temporality
    if point.kind == "gauge":
        return pb.Metric(
            name=name, gauge=pb.Gauge(data_points=[pb.NumberDataPoint(as_double=point.value, **common)])
        )
    if point.kind == "sum":
        number = pb.NumberDataPoint(as_double=point.value, **common)
        of_sum = pb.Sum(
            data_points=[number], is_monotonic=point.monotonic, aggregation_temporality=temporality
        )
        return pb.Metric(name=name, sum=of_sum)
    common |= {"count": int(point.value), "sum": point.sum}
    if point.kind == "summary":
        return pb.Metric(name=name, summary=pb.Summary(data_points=[pb.SummaryDataPoint(**common)]))
    if point.kind == "histogram":
        explicit = pb.HistogramDataPoint(bucket_counts=point.counts, explicit_bounds=point.bounds, **common)
        histogram = pb.Histogram(data_points=[explicit], aggregation_temporality=temporality)
        return pb.Metric(name=name, histogram=histogram)
    buckets = pb.ExponentialHistogramDataPoint.Buckets
    native = pb.ExponentialHistogramDataPoint(
        scale=point.scale,
        zero_count=point.zero_count,
        positive=buckets(offset=point.offset, bucket_counts=point.counts),
        negative=buckets(offset=point.offset, bucket_counts=point.negative_counts),
        **common,
    )
    exponential = pb.ExponentialHistogram(data_points=[native], aggregation_temporality=temporality)
    return pb.Metric(name=name, exponential_histogram=exponential)
