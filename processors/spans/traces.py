"""Kept spans -> rows of ``otel_traces`` and ``otel_traces_trace_id_ts``.

Columns and texts as the OpenTelemetry Collector's ClickHouse exporter writes them
(exporter/clickhouseexporter/exporter_traces.go), then ours: KeepReason, SampleRate, SampleWeight, TraceError,
LogTime.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from processors.origins import Items, Origins
from processors.redaction.batches import redact_details
from processors.redaction.redaction import Redaction
from processors.rows import shared, table_of
from processors.settings import HeadSampling, ProcessorSettings
from processors.spans.sampling.stage import Kept
from processors.spans.sampling.threshold import NEVER, merge_threshold, sample_rate
from processors.spans.weights import MOST, head_thresholds, rule_weights
from processors.stage import PaneView, Tables, Window
from schemas import otlp
from schemas.hexadecimal import hex_span_ids, hex_trace_ids
from schemas.otlp.limits import CUT_KEY, DEFAULT_LIMITS, Limits
from schemas.spans import DETAIL_SCHEMA, SpanBatch
from schemas.tables import NANOSECONDS, SCHEMAS
from schemas.units import NS_PER_S

KINDS = ("Unspecified", "Internal", "Server", "Client", "Producer", "Consumer")
"""OTLP SpanKind by number, as ``otel_traces`` and ``red_*`` write it."""
STATUSES = ("Unset", "Ok", "Error")
"""OTLP Status.StatusCode by number."""

_RECORDS_AT_A_TIME = 8
_MOST_HEAD = NEVER - int(NEVER / MOST)
"""A threshold in a trace state that is higher weighs as this one does: MOST."""
_MOST_WHOLE = 2.0**53


class StoreTraces:
    """Makes rows of kept spans; counts them as stored, and what is cut."""

    def __init__(self, settings: ProcessorSettings, redaction: Redaction) -> None:
        self._limits = settings.limits
        self._head_sampling = settings.head_sampling
        self._redaction = redaction

    def close(self, pane: PaneView[SpanBatch]) -> Tables:  # noqa: ARG002 - all waits for the decision
        """See processors.stage.Stage."""
        return {}

    def decide(self, pane: PaneView[SpanBatch], window: Window) -> Tables:  # noqa: ARG002 - Sample has used it
        """See processors.stage.Stage."""
        pane.fates.cut += pane.batch.cut
        pane.fates.redacted += pane.batch.redacted
        kept = pane.own.get(Kept)
        if kept is None:
            return {}
        tables = write_traces(
            pane.batch,
            kept.spans,
            pane.payloads,
            pane.time.start_s,
            self._limits,
            head_sampling=self._head_sampling,
        )
        tables["otel_traces"], redacted = redact_details(tables["otel_traces"], self._redaction)
        pane.fates.redacted += redacted
        batch = pane.batch
        pane.own.leave(Origins({"otel_traces": lambda: _origins(batch, kept.spans)}))
        pane.fates.stored += tables["otel_traces"].num_rows
        pane.fates.cut += marks(tables["otel_traces"])
        return tables


def write_traces(
    batch: SpanBatch,
    kept: pl.DataFrame,
    payloads: Sequence[bytes],
    log_time_s: int,
    limits: Limits = DEFAULT_LIMITS,
    *,
    head_sampling: Sequence[HeadSampling] = (),
) -> dict[str, pa.Table]:
    """The rows of a pane's kept spans by table, in an order that is a function of the spans alone. What spans
    share (resource, scope, names) is dictionary encoded.

    ``kept``: rows of SPAN_SCHEMA with the codes of ``batch``, joined with what ``Sampler.decide`` gives
    (``randomness``, ``threshold`` UInt64; ``reason`` String) and its error as ``trace_error`` Boolean.
    ``payloads``: what ``batch`` was decoded from, asked for one at a time. ``log_time_s``: start of the pane,
    seconds since 1970. ``limits``: of attributes. ``head_sampling``: the setting. Both tables are
    there even when empty.
    """
    spans = _sorted(batch, _with_rates(batch, kept, head_sampling))
    details = _details(spans, payloads, limits)
    names = batch.strings
    resource, scope = spans["resource"].to_arrow(), spans["scope"].to_arrow()
    columns = {
        "Timestamp": spans["start_ns"].to_arrow().cast(NANOSECONDS),
        "TraceId": hex_trace_ids(_numbers(spans, "trace_hi"), _numbers(spans, "trace_lo")),
        "SpanId": hex_span_ids(_numbers(spans, "span_id")),
        "ParentSpanId": hex_span_ids(_numbers(spans, "parent_id")),
        "TraceState": _trace_states(batch, spans),
        "SpanName": shared(names, spans["name"].to_arrow()),
        "SpanKind": shared(pa.array(KINDS), spans["kind"].to_arrow()),
        "ServiceName": shared(names, batch.resources.column("service").take(resource)),
        "ResourceAttributes": shared(
            batch.resources.column("attributes"), batch.resources.column("base").take(resource)
        ),
        "ScopeName": shared(batch.scopes.column("name"), scope),
        "ScopeVersion": shared(batch.scopes.column("version"), scope),
        "Duration": spans["duration_ns"].to_arrow().cast(pa.uint64()),
        "StatusCode": shared(pa.array(STATUSES), spans["status_code"].to_arrow()),
        "StatusMessage": shared(names, spans["status_message"].to_arrow()),
        **dict(zip(details.schema.names, details.columns, strict=True)),
        "KeepReason": spans["reason"].to_arrow().cast(pa.string()),
        "SampleRate": spans["rate"].to_arrow(),
        "SampleWeight": _whole(spans["rate"]).to_arrow(),
        "TraceError": spans["trace_error"].cast(pl.UInt8).to_arrow(),
        "LogTime": _constant(log_time_s, spans.height),
    }
    return {
        "otel_traces": table_of("otel_traces", columns),
        "otel_traces_trace_id_ts": _trace_times(spans, log_time_s),
    }


def marks(traces: pa.Table) -> int:
    """How many attribute sets of spans, events and links say that they were cut."""
    found = 0
    for name in ("SpanAttributes", "Events.Attributes", "Links.Attributes"):
        for chunk in traces.column(name).chunks:
            maps = chunk.flatten() if pa.types.is_list(chunk.type) else chunk
            found += pc.sum(pc.equal(maps.keys, CUT_KEY)).as_py() or 0
    return found


def _details(spans: pl.DataFrame, payloads: Sequence[bytes], limits: Limits) -> pa.Table:
    """DETAIL_SCHEMA of the spans, row by row. Few payloads are unpacked at a time: a pane's whole OTLP is 60
    MB and more.
    """
    record, offset, length = (_numbers(spans, name) for name in ("record", "offset", "length"))
    order = np.argsort(record, kind="stable")
    ordered, distinct = record[order], np.unique(record)
    decoded = []
    for begin in range(0, len(distinct), _RECORDS_AT_A_TIME):
        some = distinct[begin : begin + _RECORDS_AT_A_TIME]
        rows = order[np.searchsorted(ordered, some[0]) : np.searchsorted(ordered, some[-1], side="right")]
        held = [payloads[number] for number in some.tolist()]
        decoded.append(
            otlp.decode_details(
                held,
                np.searchsorted(some, record[rows]).astype(np.uint32),
                offset[rows],
                length[rows],
                limits,
            )
        )
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return pa.Table.from_batches(decoded, DETAIL_SCHEMA).combine_chunks().take(pa.array(place))


def _with_rates(batch: SpanBatch, kept: pl.DataFrame, head_sampling: Sequence[HeadSampling]) -> pl.DataFrame:
    """``final`` UInt64: the threshold of a span by all samplers that it passed; ``rate`` Float64: how many
    spans it stands for, of those that were there before any sampler.

    A threshold of the trace state and ours are of the same randomness: the stronger of the two counts. A rule
    of the settings says what all samplers before us let through, whatever the trace state says of them; its
    weight is multiplied by what our own threshold adds to that of the trace state.
    """
    heads = head_thresholds(kept, batch)
    ruled = rule_weights(kept, batch, head_sampling)
    head = pl.lit(0, pl.UInt64) if heads is None else pl.lit(heads)
    bounded = pl.min_horizontal(head, pl.lit(_MOST_HEAD, pl.UInt64))
    rate = sample_rate(pl.max_horizontal("threshold", bounded))
    if ruled is not None:
        weight = pl.lit(pl.Series(ruled))
        rate = pl.when(weight.is_nan()).then(rate).otherwise(weight * (rate / sample_rate(bounded)))
    return kept.with_columns(final=pl.max_horizontal("threshold", head).cast(pl.UInt64), rate=rate)


def _whole(rates: pl.Series) -> pl.Series:
    """Rates as whole numbers (UInt64), halves upwards; for readers that take no others."""
    return (rates + 0.5).floor().clip(1, _MOST_WHOLE).cast(pl.UInt64)


def _sorted(batch: SpanBatch, spans: pl.DataFrame) -> pl.DataFrame:
    """By service, name, start, then id and kind: neighbours alike (which compresses), and no order of arrival
    left but between spans that are equal in all of that.
    """
    service = pl.Series(batch.resources.column("service")).gather(spans["resource"])
    ranks = _ranks(batch, pl.concat([service, spans["name"]]).unique())
    ordered = spans.with_columns(
        service_rank=service.replace_strict(ranks["code"], ranks["rank"]),
        name_rank=pl.col("name").replace_strict(ranks["code"], ranks["rank"]),
    )
    keys = ("service_rank", "name_rank", "start_ns", "trace_hi", "trace_lo", "span_id", "kind")
    return ordered.sort(keys, maintain_order=True)


def _origins(batch: SpanBatch, kept: pl.DataFrame) -> Items:
    positions = pl.DataFrame(batch.spans.select(["record", "offset"])).with_row_index("row")
    of_rows = _sorted(batch, kept).select("record", "offset")
    rows = of_rows.join(positions, on=["record", "offset"], how="left", maintain_order="left")["row"]
    return Items.of(batch.spans.column("record").to_numpy(), rows.to_numpy())


def _ranks(batch: SpanBatch, codes: pl.Series) -> pl.DataFrame:
    texts = pl.Series(batch.strings.take(codes.to_arrow()))
    return pl.DataFrame({"code": codes, "rank": texts.rank("dense")})


def _trace_states(batch: SpanBatch, spans: pl.DataFrame) -> pa.StringArray:
    """Each span's trace state with its final threshold in it, written once per distinct pair."""
    pairs = spans.select("trace_state", "final").unique(maintain_order=True)
    before = batch.strings.take(pairs["trace_state"].to_arrow()).to_pylist()
    merged = [
        merge_threshold(state, threshold)
        for state, threshold in zip(before, pairs["final"].to_list(), strict=True)
    ]
    rows = spans.select("trace_state", "final").join(
        pairs.with_row_index("pair"), on=["trace_state", "final"], how="left", maintain_order="left"
    )
    return pa.array(merged, pa.string()).take(rows["pair"].to_arrow())


def _trace_times(spans: pl.DataFrame, log_time_s: int) -> pa.Table:
    """First and last start of each trace's kept spans in whole seconds, as the Collector's materialised view
    has them.
    """
    times = (
        spans.group_by("trace_hi", "trace_lo")
        .agg(first=pl.col("start_ns").min() // NS_PER_S, last=pl.col("start_ns").max() // NS_PER_S)
        .sort("trace_hi", "trace_lo")
    )
    seconds = (
        times[name].clip(0, np.iinfo(np.uint32).max).cast(pl.UInt32).to_arrow() for name in ("first", "last")
    )
    trace_ids = hex_trace_ids(_numbers(times, "trace_hi"), _numbers(times, "trace_lo"))
    return pa.table(
        [trace_ids, *seconds, _constant(log_time_s, times.height)], schema=SCHEMAS["otel_traces_trace_id_ts"]
    )


def _numbers(frame: pl.DataFrame, column: str) -> npt.NDArray[np.uint64]:
    return frame[column].to_numpy()


def _constant(log_time_s: int, rows: int) -> pa.Array:
    return pa.array(np.full(rows, log_time_s, dtype=np.uint32))
