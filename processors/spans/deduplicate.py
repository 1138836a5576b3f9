"""First copies (invariant 8): Envoy's retried exports bring a span several times; the first one in the
lookback counts. Spans without a valid trace id or span id are rejected: only foreign writers append them.

Two spans may share an id: client and server of a call have one in Zipkin's B3, and processes that were forked
draw equal ids. A copy has the id, the kind, the service, the instance and the start (in whole microseconds,
as Zipkin and Jaeger carry it) of an earlier span, and both are a proxy's or neither is. Of a span that came
unfinished (it ends no later than it starts) and came again with its end, the end counts.

A span is known by a 64-bit key of its trace and span id (within one trace, distinct span ids have distinct
keys), and by a second one of all that tells copies. At 50K spans/s over 4 partitions and a lookback of 60 s
two spans of different traces share the first key about once in 15 years; that does no harm any more unless
they share the second one as well.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from processors.grouping import NO_BUCKET, U64, Flags, hash_rows, hash_texts
from processors.limits import Codes, Labels
from processors.settings import ProcessorSettings
from processors.spans.sampling.sampler import Sampler
from processors.spans.weights import weights_of
from processors.stage import PaneView, Tables, Window
from schemas.spans import SpanBatch
from schemas.units import NS_PER_S

LONGEST_NS = 24 * 3600 * NS_PER_S
"""A longer duration is unknown; sums of known ones wrap after 213,000 such spans in one row."""

UNFINISHED, FAILED = np.uint64(1), np.uint64(2)
"""Bits of a span key: the span came unfinished; it did, and said that it failed."""
SPAN = ~(UNFINISHED | FAILED)
"""The bits of a span key that all versions of a span have in common."""

_SPAN = pl.col("span_key") & pl.lit(int(SPAN), pl.UInt64)
_IS_UNFINISHED = (pl.col("span_key") & pl.lit(int(UNFINISHED), pl.UInt64)) > 0
_HAS_FAILED = (pl.col("span_key") & pl.lit(int(FAILED), pl.UInt64)) > 0


@dataclass(frozen=True, slots=True)
class PaneSpans:
    """A pane's own note: its spans, each once."""

    labels: Labels
    frame: pl.DataFrame
    """SPAN_SCHEMA (``error`` with what codes say, so no ``code_error``), ``key``, ``parent_key``,
    ``span_key``, ``weight`` (``processors.spans.weights``); an unknown duration is 0, its bucket NO_BUCKET.
    """
    first: pl.Series
    """Which of ``frame`` are in no earlier pane of the lookback, in any version (bool)."""
    slots: Codes
    """The 10 s slot of each of ``frame``."""
    ends: "Ends"
    """The ends of spans that earlier panes have unfinished."""


@dataclass(frozen=True, slots=True)
class Ends:
    """Spans that finish what came unfinished in earlier panes of the lookback."""

    rows: npt.NDArray[np.int64]
    """Rows of PaneSpans.frame."""
    failed: Flags
    """Which had said that they failed before they ended."""


@dataclass(frozen=True, slots=True)
class SeenSpans:
    """A note for the panes around: a pane's spans, each version once, row by row those of PaneSpans.frame."""

    keys: pl.Series
    span_keys: pl.Series
    shared: pl.Series
    """Keys that several spans of this pane, or of it and an earlier one, have."""
    ends: pl.Series
    """Span keys of the pane's ends."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A decided pane's own note."""

    rows: pl.Series
    """Which of PaneSpans.frame may be stored: first copies, unless their end came within the wait, and ends
    (bool).
    """
    superseded: npt.NDArray[np.int64]
    """Rows of first copies whose end came within the wait."""


class Deduplicate:
    """Leaves PaneSpans and SeenSpans, then Stored; counts what is rejected, duplicate and late."""

    def __init__(self, settings: ProcessorSettings, sampler: Sampler) -> None:  # noqa: ARG002 - as every stage
        self._label_length = settings.labels.label_length
        self._errors_from_codes = settings.errors_from_codes
        self._head_sampling = settings.head_sampling

    def close(self, pane: PaneView[SpanBatch]) -> Tables:
        """See processors.stage.Stage."""
        identified = with_durations(with_ids(pl.DataFrame(pane.batch.spans)))
        if self._errors_from_codes:
            identified = identified.with_columns(error=pl.col("error") | pl.col("code_error"))
        keyed = with_span_keys(with_keys(identified.drop("code_error")), pane.batch)
        frame, shared = drop_copies(keyed)
        frame = frame.with_columns(weights_of(frame, pane.batch, self._head_sampling))
        first, ends, more = compare(frame, list(pane.looked_back(SeenSpans)))
        slots = pane.time.slots(frame["end_ns"].to_numpy())
        pane.own.leave(PaneSpans(Labels.of(pane.batch, self._label_length), frame, first, slots, ends))
        if frame.height:
            shared = pl.concat([shared, more]).unique()
            pane.seen.leave(
                SeenSpans(frame["key"], frame["span_key"], shared, frame["span_key"].gather(ends.rows))
            )
        pane.fates.rejected += len(pane.batch) - identified.height
        pane.fates.duplicate += identified.height - int(first.sum()) - len(ends.rows)
        pane.fates.late += int((first.to_numpy() & pane.time.late(slots)).sum())
        return {}

    def decide(self, pane: PaneView[SpanBatch], window: Window) -> Tables:
        """See processors.stage.Stage."""
        spans = pane.own[PaneSpans]
        stored: Flags = spans.first.to_numpy().copy()
        superseded = np.empty(0, np.int64)
        unfinished = np.flatnonzero(stored & ((spans.frame["span_key"].to_numpy() & UNFINISHED) > 0))
        later = [seen.ends for number, seen in window.seen(SeenSpans).items() if number > pane.number]
        if len(unfinished) and any(map(len, later)):
            own = pl.Series(spans.frame["span_key"].to_numpy()[unfinished] & SPAN)
            superseded = unfinished[own.is_in(pl.concat(later).implode()).to_numpy()]
            stored[superseded] = False
            pane.fates.duplicate += len(superseded)
        stored[spans.ends.rows] = True
        pane.own.leave(Stored(pl.Series(stored), superseded))
        return {}


def with_durations(spans: pl.DataFrame) -> pl.DataFrame:
    """The spans with unknown durations as 0, in no bucket: those without a start, that end before it, or that
    take longer than LONGEST_NS, which no clock near ours shows.
    """
    start_ns, end_ns, duration_ns = (spans[name].to_numpy() for name in ("start_ns", "end_ns", "duration_ns"))
    known = (start_ns > 0) & (start_ns <= end_ns) & (duration_ns <= LONGEST_NS)
    if known.all():
        return spans
    return spans.with_columns(
        pl.Series("duration_ns", np.where(known, duration_ns, 0)),
        pl.Series("bucket", np.where(known, spans["bucket"].to_numpy(), NO_BUCKET).astype(np.int16)),
    )


def with_ids(spans: pl.DataFrame) -> pl.DataFrame:
    """The spans that have a trace id and a span id; one of a wrong length, or zero, is none."""
    trace_hi, trace_lo, span_id = (spans[name].to_numpy() for name in ("trace_hi", "trace_lo", "span_id"))
    valid = (trace_hi | trace_lo).astype(np.bool_) & span_id.astype(np.bool_)
    return spans if valid.all() else spans.filter(pl.Series(valid))


def _mix(values: U64) -> U64:
    """The finaliser of splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014):
    a bijection.
    """
    mixed = values ^ (values >> np.uint64(30))
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def with_keys(spans: pl.DataFrame) -> pl.DataFrame:
    """Add ``key`` and ``parent_key`` (u64; a root's parent_key is 0) to spans with the id columns of
    SPAN_SCHEMA.
    """
    trace = _mix(_mix(spans["trace_hi"].to_numpy()) + spans["trace_lo"].to_numpy())
    parent_id = spans["parent_id"].to_numpy()
    parent_key = _mix(parent_id ^ trace)
    parent_key[parent_id == 0] = 0
    return spans.with_columns(
        pl.Series("key", _mix(spans["span_id"].to_numpy() ^ trace)), pl.Series("parent_key", parent_key)
    )


def with_span_keys(spans: pl.DataFrame, batch: SpanBatch) -> pl.DataFrame:
    """Add ``span_key`` (u64): of ``key`` and of what else tells a span from another of its id; the two lowest
    bits are UNFINISHED and FAILED.
    """
    senders = hash_rows([
        hash_texts(pl.Series(batch.strings.take(batch.resources.column(name)), dtype=pl.String))
        for name in ("service", "instance")
    ])  # fmt: skip
    start_ns = spans["start_ns"].to_numpy()
    side = (start_ns // 1_000).astype(np.uint64) << np.uint64(4)
    side |= spans["kind"].to_numpy() | (spans["proxy"].to_numpy().astype(np.uint8) << 3)
    side *= np.uint64(0x9E3779B97F4A7C15)
    side ^= senders[spans["resource"].to_numpy()]
    mixed = _mix(spans["key"].to_numpy() ^ side)
    mixed &= SPAN
    unfinished = spans["end_ns"].to_numpy() <= start_ns
    mixed |= unfinished * (UNFINISHED + spans["error"].to_numpy() * FAILED)
    return spans.with_columns(pl.Series("span_key", mixed))


def drop_copies(spans: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
    """The first row of each span, of spans that came unfinished the first with an end where there is one; and
    the keys that several spans have.
    """
    distinct = spans["key"].is_first_distinct()
    if distinct.all():
        return spans, spans["key"].clear()
    several = spans["key"].is_in(spans["key"].filter(~distinct).implode())
    versions = (
        spans.select("key", "span_key")
        .with_row_index("row")
        .filter(several)
        .with_columns(span=_SPAN, unfinished=_IS_UNFINISHED)
        .sort("unfinished", "row")
        .unique("span", keep="first")
    )
    stays = (~several).to_numpy().copy()
    stays[versions["row"].to_numpy()] = True
    keys = versions["key"]
    return spans.filter(pl.Series(stays)), keys.filter(keys.is_duplicated()).unique()


def compare(spans: pl.DataFrame, earlier: Sequence[SeenSpans]) -> tuple[pl.Series, Ends, pl.Series]:
    """Which of a pane's spans are in none of the earlier panes (bool), which are the ends of spans that are
    there unfinished, and which keys other spans of these panes have.
    """
    keys = spans["key"]
    before = _of_keys(keys, earlier)
    first = np.ones(spans.height, np.bool_)
    if before.is_empty():
        nothing = np.empty(0, np.int64)
        return pl.Series(first), Ends(nothing, nothing.astype(np.bool_)), keys.clear()
    met = spans.select("key", "span_key").with_row_index("row").filter(keys.is_in(before["key"].implode()))
    met = met.with_columns(span=_SPAN)
    before = before.with_columns(span=_SPAN).unique()
    shared = met.join(before, on="key").filter(pl.col("span") != pl.col("span_right"))["key"].unique()
    known = before.group_by("span").agg(finished=(~_IS_UNFINISHED).any(), failed=_HAS_FAILED.any())
    copies = met.join(known, on="span").sort("row")
    first[copies["row"].to_numpy()] = False
    ends = copies.filter(~pl.col("finished") & ~_IS_UNFINISHED)
    return (
        pl.Series(first),
        Ends(ends["row"].to_numpy().astype(np.int64), ends["failed"].to_numpy()),
        shared,
    )


def _of_keys(keys: pl.Series, earlier: Iterable[SeenSpans]) -> pl.DataFrame:
    """``key`` and ``span_key`` of the earlier panes' spans that have one of these keys."""
    seen = list(earlier)
    before = pl.concat([keys.clear(), *(each.keys for each in seen)], rechunk=False)
    hit = before.is_in(keys.implode())
    if not hit.any():
        return pl.DataFrame(schema={"key": pl.UInt64, "span_key": pl.UInt64})
    span_keys = pl.concat([keys.clear(), *(each.span_keys for each in seen)], rechunk=False)
    return pl.DataFrame({"key": before.filter(hit), "span_key": span_keys.filter(hit)})
