"""Tail sampling as a stage: summaries when a pane closes, decisions when its window is complete."""

from dataclasses import dataclass

import polars as pl

from processors.lookup import NOWHERE, Index
from processors.settings import ProcessorSettings
from processors.spans.deduplicate import PaneSpans, Stored
from processors.spans.sampling.sampler import Sampler
from processors.stage import PaneView, Tables, Window
from schemas.spans import SpanBatch


@dataclass(frozen=True, slots=True)
class Summary:
    """A note for the panes around: one row for each trace of a pane (``Sampler.summarize``)."""

    traces: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Kept:
    """A pane's own note: its spans that are stored."""

    spans: pl.DataFrame
    """SPAN_SCHEMA, ``randomness``, ``threshold`` UInt64, ``reason`` String, ``trace_error`` Boolean."""


class Sample:
    """Leaves Summary, then Kept; counts what is kept and dropped."""

    def __init__(self, settings: ProcessorSettings, sampler: Sampler) -> None:  # noqa: ARG002 - as every stage
        self._sampler = sampler

    def close(self, pane: PaneView[SpanBatch]) -> Tables:
        """See processors.stage.Stage."""
        spans = pane.own[PaneSpans].frame
        if spans.height:
            pane.seen.leave(Summary(self._sampler.summarize(pane.batch, spans, pane.number)))
        return {}

    def decide(self, pane: PaneView[SpanBatch], window: Window) -> Tables:
        """See processors.stage.Stage."""
        spans, stored = pane.own[PaneSpans].frame, pane.own[Stored].rows
        if spans.is_empty():
            return {}
        summaries = [summary.traces for summary in window.seen(Summary).values()]
        decisions = self._sampler.decide(summaries, pane.number).rename({"error": "trace_error"})
        near = Index(decisions["trace_lo"].to_numpy()).find(spans["trace_lo"].to_numpy()) != NOWHERE
        kept = spans.filter(stored & pl.Series(near)).join(decisions, on=["trace_hi", "trace_lo"])
        kept = limit_traces(kept, self._sampler.settings.trace_spans)
        pane.own.leave(Kept(kept))
        pane.fates.kept += kept.height
        pane.fates.dropped += int(stored.sum()) - kept.height
        return {}


def limit_traces(kept: pl.DataFrame, limit: int) -> pl.DataFrame:
    """Of each trace the first ``limit`` spans, by start, then id: one that never ends would fill the store
    (invariant 7). Of equal ones those that came first stay.
    """
    trace = ("trace_hi", "trace_lo")
    if kept.height <= limit or kept.group_by(trace).len()["len"].max() <= limit:  # type: ignore[operator]  # a count
        return kept
    rank = pl.struct("start_ns", "span_id").rank("ordinal").over(trace)
    return kept.filter(rank <= limit)
