"""Log records -> rows of ``otel_logs``.

Columns as the OpenTelemetry Collector's ClickHouse exporter fills them
(exporter/clickhouseexporter/exporter_logs.go).
"""

from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow as pa

from processors.identities import FirstItems
from processors.origins import Items, Origins
from processors.rows import Rows, constant, context_columns, service_names, shared, table_of, text_ranks
from processors.stage import PaneView, Tables, Window
from schemas.hexadecimal import hex_span_ids, hex_trace_ids
from schemas.logs import LogBatch
from schemas.tables import NANOSECONDS

TABLE = "otel_logs"


class StoreLogs:
    """Makes rows of log records, each stored once; counts them as kept and stored,
    and what is cut.
    """

    def close(self, pane: PaneView[LogBatch]) -> Tables:  # noqa: ARG002 - a pane is stored when it is decided
        """See processors.stage.Stage."""
        return {}

    def decide(self, pane: PaneView[LogBatch], window: Window) -> Tables:  # noqa: ARG002 - all is decided
        """See processors.stage.Stage."""
        batch, first = with_times(pane), pane.own[FirstItems].rows
        rows = log_rows(batch, first, pane.time.start_s)
        pane.own.leave(Origins({TABLE: lambda: _origins(batch, first)}))
        pane.fates.kept += rows.num_rows
        pane.fates.stored += rows.num_rows
        pane.fates.cut += pane.batch.contexts.cut
        pane.fates.redacted += pane.batch.contexts.redacted
        return {TABLE: rows}


def with_times(pane: PaneView[LogBatch]) -> LogBatch:
    """The pane's batch with the log's append time where a record has no time of its own; one outside of the
    pane is moved to its edge.
    """
    batch = pane.batch
    time_ns = batch.logs.column("time_ns").to_numpy()
    if time_ns.all():
        return batch
    appended = np.array([record.append_time_ns for record in pane.records], np.int64)
    appended = appended.clip(pane.time.start_ns, pane.time.start_ns + pane.time.pane_ns - 1)
    known = np.where(time_ns == 0, appended[batch.logs.column("record").to_numpy()], time_ns)
    place = batch.logs.schema.get_field_index("time_ns")
    logs = batch.logs.set_column(place, batch.logs.schema.field(place), pa.array(known))
    return replace(batch, logs=logs)


def log_rows(batch: LogBatch, rows: Rows, log_time_s: int) -> pa.Table:
    """These log records as ``SCHEMAS["otel_logs"]``, by service, time, then identity: no order of arrival is
    left. What records share is dictionary encoded. ``log_time_s``: start of the pane, s since 1970.
    """
    logs = batch.logs.take(_sorted(batch, rows))
    strings = batch.contexts.strings
    trace_hi, trace_lo, span_id = (
        logs.column(name).to_numpy() for name in ("trace_hi", "trace_lo", "span_id")
    )
    columns = {
        **context_columns(batch.contexts, logs),
        "Timestamp": logs.column("time_ns").cast(NANOSECONDS),
        "TraceId": hex_trace_ids(trace_hi, trace_lo),
        "SpanId": hex_span_ids(span_id),
        "TraceFlags": logs.column("flags"),
        "SeverityText": shared(strings, logs.column("severity_text")),
        "SeverityNumber": logs.column("severity"),
        "Body": logs.column("body"),
        "LogAttributes": shared(batch.contexts.attributes.column("attributes"), logs.column("attributes")),
        "EventName": shared(strings, logs.column("event_name")),
        "LogTime": constant(log_time_s, logs.num_rows),
    }
    return table_of(TABLE, columns)


def _origins(batch: LogBatch, rows: Rows) -> Items:
    return Items.of(batch.logs.column("record").to_numpy(), _sorted(batch, rows).to_numpy())


def _sorted(batch: LogBatch, rows: Rows) -> pa.Array:
    keys = batch.logs.select(["resource", "time_ns", "identity_hi", "identity_lo"]).take(pa.array(rows))
    frame = pl.DataFrame(keys.drop_columns(["resource"])).with_columns(
        service=text_ranks(batch.contexts.strings, service_names(batch.contexts, keys)), row=pl.Series(rows)
    )
    return frame.sort("service", "time_ns", "identity_hi", "identity_lo")["row"].to_arrow()
