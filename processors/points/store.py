"""Data points -> rows of ``otel_metrics_*``.

Columns as the OpenTelemetry Collector's ClickHouse exporter fills them
(exporter/clickhouseexporter/internal/metrics); but ids of exemplars are "" where they are missing.
"""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from processors.identities import FirstItems
from processors.origins import Items, Origins
from processors.points.claims import Claims
from processors.points.facts import Taken, of_proxies
from processors.points.increments import Increments
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
    """Makes rows of data points that no table of counters takes, each stored once; counts all of them: as
    aggregated, left out, or kept and stored, and what is cut.

    A proxy's own statistics that no table takes are left out, unless ``keep`` names them.
    """

    def __init__(self, keep: Sequence[str] = ()) -> None:
        """``keep``: patterns of names of metrics that are stored in any case."""
        self._keep = [re.compile(fnmatch.translate(pattern)) for pattern in keep]

    def close(self, pane: PaneView[PointBatch]) -> Tables:  # noqa: ARG002 - a pane is stored when it is decided
        """See processors.stage.Stage."""
        return {}

    def decide(self, pane: PaneView[PointBatch], window: Window) -> Tables:  # noqa: ARG002 - all is decided
        """See processors.stage.Stage."""
        batch, first = pane.batch, self._counted(pane)
        tables = point_rows(batch, first, pane.time.start_s)
        pane.own.leave(
            Origins({table: partial(_origins, batch, first, kind) for kind, table in enumerate(TABLES)})
        )
        stored = sum(rows.num_rows for rows in tables.values())
        pane.fates.stored += stored
        pane.fates.cut += pane.batch.contexts.cut
        pane.fates.redacted += pane.batch.contexts.redacted
        return tables

    def _counted(self, pane: PaneView[PointBatch]) -> Rows:
        """The points to store; counts what becomes of all first copies."""
        batch, first = pane.batch, pane.own[FirstItems].rows
        taken = pane.own[Taken]
        is_first = np.zeros(len(batch), np.bool_)
        is_first[first] = True
        is_kept = self._named(batch)
        is_taken = taken.family >= 0
        unasked = taken.left_out | ((pane.own[Claims].family < 0) & of_proxies(batch))
        goes = ~is_taken & unasked & ~is_kept
        fates = pane.fates
        fates.aggregated += int(np.count_nonzero(is_first & is_taken))
        fates.left_out += int(np.count_nonzero(is_first & goes))
        fates.kept += int(np.count_nonzero(is_first & ~is_taken & ~goes))
        fates.unknown += int(np.count_nonzero((is_first & is_taken)[pane.own[Increments].unknown]))
        rows: Rows = np.flatnonzero(is_first & np.where(is_taken, is_kept, ~goes)).astype(np.uint32)
        return rows

    def _named(self, batch: PointBatch) -> npt.NDArray[np.bool_]:
        """Which points have a name that is stored in any case."""
        wanted = np.zeros(len(batch.contexts.strings), np.bool_)
        code = batch.points.column("name").to_numpy()
        if self._keep:
            is_there = np.zeros(len(wanted), np.bool_)
            is_there[code] = True
            distinct = np.flatnonzero(is_there)
            texts = batch.contexts.strings.take(pa.array(distinct)).to_pylist()
            wanted[distinct] = [any(form.match(text) for form in self._keep) for text in texts]
        flags: npt.NDArray[np.bool_] = wanted[code]
        return flags


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
