"""First copies (invariant 8): Envoy's retried exports bring a span several times; the first one in the
lookback counts. Spans without a valid trace id or span id are rejected: only foreign writers append them.

A span is known by a 64-bit key of its trace and span id (within one trace, distinct span ids have distinct
keys). At 50K spans/s over 4 partitions and a lookback of 60 s two spans of different traces share a key, and
one is taken for a copy, about once in 15 years.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from processors.grouping import NO_BUCKET
from processors.limits import Codes, Labels
from processors.settings import ProcessorSettings
from processors.spans.sampling.sampler import Sampler
from processors.stage import PaneView, Tables, Window
from schemas.spans import SpanBatch
from schemas.units import NS_PER_S

LONGEST_NS = 24 * 3600 * NS_PER_S
"""A longer duration is unknown; sums of known ones wrap after 213,000 such spans in one row."""


@dataclass(frozen=True, slots=True)
class PaneSpans:
    """A pane's own note: its spans, each once."""

    labels: Labels
    frame: pl.DataFrame
    """SPAN_SCHEMA, ``key``, ``parent_key``; an unknown duration is 0, its bucket NO_BUCKET."""
    first: pl.Series
    """Which of ``frame`` are in no earlier pane of the lookback (bool)."""
    slots: Codes
    """The 10 s slot of each of ``frame``."""

    def fresh(self, pane: PaneView[SpanBatch]) -> pl.Series:
        """Which of ``frame`` are first copies that no earlier reader has stored when the pane closed."""
        return self.first & pl.Series(pane.not_closed_before(self.frame["record"].to_numpy()))


@dataclass(frozen=True, slots=True)
class SeenKeys:
    """A note for later panes: the keys of a pane's spans, each once."""

    keys: pl.Series


class Deduplicate:
    """Leaves PaneSpans and SeenKeys; counts what is rejected, duplicate and late."""

    def __init__(self, settings: ProcessorSettings, sampler: Sampler) -> None:  # noqa: ARG002 - as every stage
        self._label_length = settings.labels.label_length

    def close(self, pane: PaneView[SpanBatch]) -> Tables:
        """See processors.stage.Stage."""
        identified = with_durations(with_ids(pl.DataFrame(pane.batch.spans)))
        frame = drop_copies(with_keys(identified))
        first = first_copies(frame["key"], (seen.keys for seen in pane.looked_back(SeenKeys)))
        slots = pane.time.slots(frame["end_ns"].to_numpy())
        pane.own.leave(PaneSpans(Labels.of(pane.batch, self._label_length), frame, first, slots))
        if frame.height:
            pane.seen.leave(SeenKeys(frame["key"]))
        pane.fates.rejected += len(pane.batch) - identified.height
        pane.fates.duplicate += identified.height - int(first.sum())
        pane.fates.late += int((first.to_numpy() & pane.time.late(slots)).sum())
        return {}

    def decide(self, pane: PaneView[SpanBatch], window: Window) -> Tables:  # noqa: ARG002 - nothing to decide
        """See processors.stage.Stage."""
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


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
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


def drop_copies(spans: pl.DataFrame) -> pl.DataFrame:
    """The first row of each key."""
    first = spans["key"].is_first_distinct()
    return spans if first.all() else spans.filter(first)


def first_copies(keys: pl.Series, earlier: Iterable[pl.Series]) -> pl.Series:
    """Which of a pane's distinct keys are in none of the earlier panes' (bool, one for each key)."""
    before = pl.concat([keys.clear(), *earlier], rechunk=False)
    seen = before.filter(before.is_in(keys.implode()))
    return ~keys.is_in(seen.implode())
