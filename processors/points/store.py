"""Data points -> rows of ``otel_metrics_*``.

Columns as the OpenTelemetry Collector's ClickHouse exporter fills them
(exporter/clickhouseexporter/internal/metrics); but ids of exemplars are "" where they are missing.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
import polars as pl
import pyarrow as pa

from processors.identities import FirstItems
from processors.origins import Items, Origins
from processors.rows import Rows, constant, context_columns, service_names, shared, table_of, text_ranks
from processors.stage import PaneView, Tables, Window
from schemas.hexadecimal import hex_span_ids, hex_trace_ids
from schemas.points import KINDS, PointBatch
from schemas.tables import NANOSECONDS, SCHEMAS

_DISTRIBUTION_COLUMNS = {
    "Count": "count",
    "Sum": "sum",
    "Min": "min",
    "Max": "max",
    "BucketCounts": "counts",
    "ExplicitBounds": "bounds",
    "Scale": "scale",
    "ZeroCount": "zero_count",
    "PositiveOffset": "positive_offset",
    "PositiveBucketCounts": "counts",
    "NegativeOffset": "negative_offset",
    "NegativeBucketCounts": "negative_counts",
    "ValueAtQuantiles.Quantile": "quantiles",
    "ValueAtQuantiles.Value": "quantile_values",
}
"""Columns of tables -> columns of DISTRIBUTION_SCHEMA."""


TABLES = tuple(f"otel_metrics_{name}" for name in KINDS)
"""By the number of the kind."""


class StorePoints:
    """Makes rows of data points, each stored once; counts them as kept and stored,
    and what is cut.
    """

    def close(self, pane: PaneView[PointBatch]) -> Tables:  # noqa: ARG002 - a pane is stored when it is decided
        """See processors.stage.Stage."""
        return {}

    def decide(self, pane: PaneView[PointBatch], window: Window) -> Tables:  # noqa: ARG002 - all is decided
        """See processors.stage.Stage."""
        batch, first = pane.batch, pane.own[FirstItems].rows
        tables = point_rows(batch, first, pane.time.start_s)
        pane.own.leave(
            Origins({table: partial(_origins, batch, first, kind) for kind, table in enumerate(TABLES)})
        )
        stored = sum(rows.num_rows for rows in tables.values())
        pane.fates.kept += stored
        pane.fates.stored += stored
        pane.fates.cut += pane.batch.contexts.cut
        pane.fates.redacted += pane.batch.contexts.redacted
        return tables


def point_rows(batch: PointBatch, rows: Rows, log_time_s: int) -> dict[str, pa.Table]:
    """These points by table, each by service, metric, time, then identity: no order of arrival is left.

    What points share is dictionary encoded. ``log_time_s``: start of the pane, s since 1970. Tables without
    rows are there too.
    """
    ordered = _sorted(batch, rows)
    kinds = batch.points.column("kind").to_numpy()[ordered]
    exemplars = _exemplars(batch)
    return {
        table: _table(batch, table, ordered[kinds == kind], exemplars, log_time_s)
        for kind, table in enumerate(TABLES)
    }


def _origins(batch: PointBatch, rows: Rows, kind: int) -> Items:
    ordered = _sorted(batch, rows)
    of_kind = ordered[batch.points.column("kind").to_numpy()[ordered] == kind]
    return Items.of(batch.points.column("record").to_numpy(), of_kind)


def _table(
    batch: PointBatch, table: str, rows: Rows, exemplars: Mapping[str, pa.Array], log_time_s: int
) -> pa.Table:
    points = batch.points.take(pa.array(rows))
    strings = batch.contexts.strings
    columns = {
        **context_columns(batch.contexts, points),
        **{name: values.take(pa.array(rows)) for name, values in exemplars.items()},
        "MetricName": shared(strings, points.column("name")),
        "MetricDescription": shared(strings, points.column("description")),
        "MetricUnit": shared(strings, points.column("unit")),
        "Attributes": shared(batch.contexts.attributes.column("attributes"), points.column("attributes")),
        "StartTimeUnix": points.column("start_ns").cast(NANOSECONDS),
        "TimeUnix": points.column("time_ns").cast(NANOSECONDS),
        "Value": points.column("value"),
        "Flags": points.column("flags"),
        "AggregationTemporality": points.column("temporality"),
        "IsMonotonic": points.column("monotonic"),
        "LogTime": constant(log_time_s, points.num_rows),
    }
    if "Count" in SCHEMAS[table].names:
        of_point = np.searchsorted(batch.distributions.column("point").to_numpy(), rows)
        distributions = batch.distributions.take(pa.array(of_point))
        columns |= {name: distributions.column(own) for name, own in _DISTRIBUTION_COLUMNS.items()}
    return table_of(table, columns)


def _sorted(batch: PointBatch, rows: Rows) -> Rows:
    names = ["resource", "name", "time_ns", "identity_hi", "identity_lo"]
    keys = batch.points.select(names).take(pa.array(rows))
    strings = batch.contexts.strings
    frame = pl.DataFrame(keys.drop_columns(["resource", "name"])).with_columns(
        service=text_ranks(strings, service_names(batch.contexts, keys)),
        name=text_ranks(strings, pl.Series(keys.column("name"))),
        row=pl.Series(rows),
    )
    ordered: Rows = frame.sort("service", "name", "time_ns", "identity_hi", "identity_lo")["row"].to_numpy()
    return ordered


def _exemplars(batch: PointBatch) -> dict[str, pa.Array]:
    """The exemplars of each point, as lists."""
    exemplars = batch.exemplars
    of_point = exemplars.column("point").to_numpy()
    offsets = pa.array(np.searchsorted(of_point, np.arange(len(batch) + 1)).astype(np.int32))
    trace_hi, trace_lo, span_id = (
        exemplars.column(name).to_numpy() for name in ("trace_hi", "trace_lo", "span_id")
    )
    values = {
        "FilteredAttributes": exemplars.column("attributes"),
        "TimeUnix": exemplars.column("time_ns").cast(NANOSECONDS),
        "Value": exemplars.column("value"),
        "SpanId": hex_span_ids(span_id),
        "TraceId": hex_trace_ids(trace_hi, trace_lo),
    }
    return {f"Exemplars.{name}": pa.ListArray.from_arrays(offsets, array) for name, array in values.items()}
