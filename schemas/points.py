"""PointBatch: one pane's data points as columns, no object for each."""

from dataclasses import dataclass

import pyarrow as pa

from schemas.contexts import CODE, ROW, Contexts, batch_schema
from schemas.spans import ATTRIBUTES

KINDS = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
"""``kind`` by number."""

MICROSECONDS_BELOW = 10**16
"""Starts below it are microseconds when a thousand times as much is no later than the point's own time:
Envoy's stat sink writes such. As nanoseconds: April 1970; as microseconds: the year 2286.
"""

POINT_SCHEMA = batch_schema(
    record=ROW,  # index into the records given to decode_points
    resource=ROW,  # of Contexts.resources
    scope=ROW,  # of Contexts.scopes
    attributes=ROW,  # of Contexts.attributes
    # hash of the resource's attributes and cluster, the scope's name and version, the metric's name, unit,
    # kind, temporality and monotonicity, and the point's attributes; whatever the attributes' order
    series=pa.uint64(),
    name=CODE,
    description=CODE,
    unit=CODE,
    kind=pa.uint8(),
    temporality=pa.int32(),  # OTLP AggregationTemporality as it was sent; 0 for gauges and summaries
    monotonic=pa.bool_(),
    flags=pa.uint32(),
    start_ns=pa.int64(),  # microseconds set right; later than int64 reaches: clamped
    time_ns=pa.int64(),
    value=pa.float64(),  # of gauges and sums, else 0; NaN where the flags say that there is none
    # of the point's part of its request and its place in it: see schemas.logs
    identity_hi=pa.uint64(),
    identity_lo=pa.uint64(),
)
"""One row per point, in the order of the records' bytes."""

DISTRIBUTION_SCHEMA = batch_schema(
    point=ROW,  # of PointBatch.points
    count=pa.uint64(),
    zero_count=pa.uint64(),
    sum=pa.float64(),  # NaN, as min and max, where the flags say that there is no recorded value
    min=pa.float64(),
    max=pa.float64(),
    scale=pa.int32(),
    positive_offset=pa.int32(),
    negative_offset=pa.int32(),
    counts=pa.list_(pa.uint64()),  # of a histogram's buckets, or of an exponential one's positive ones
    negative_counts=pa.list_(pa.uint64()),
    bounds=pa.list_(pa.float64()),
    quantiles=pa.list_(pa.float64()),
    quantile_values=pa.list_(pa.float64()),
)
"""One row for each histogram, exponential histogram and summary, in the order of the points."""

EXEMPLAR_SCHEMA = batch_schema(
    point=ROW,
    time_ns=pa.int64(),
    value=pa.float64(),
    trace_hi=pa.uint64(),
    trace_lo=pa.uint64(),
    span_id=pa.uint64(),
    attributes=ATTRIBUTES,
)
"""One row for each exemplar, in the order of the points."""


@dataclass(frozen=True, slots=True)
class PointBatch:
    """Data points of one pane of one partition."""

    points: pa.RecordBatch
    """POINT_SCHEMA."""
    distributions: pa.RecordBatch
    """DISTRIBUTION_SCHEMA."""
    exemplars: pa.RecordBatch
    """EXEMPLAR_SCHEMA."""
    contexts: Contexts

    def __len__(self) -> int:
        return int(self.points.num_rows)
