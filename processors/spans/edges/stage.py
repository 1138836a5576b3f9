"""Edges as a stage: look-up rows when a pane closes, edges when its window is complete."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from processors.limits import Labels, Past
from processors.settings import LabelLimits, ProcessorSettings
from processors.spans.deduplicate import PaneSpans, SeenSpans
from processors.spans.dimensions import Dimensions, SeenDimensions, SpanDimensions, WindowDimensions
from processors.spans.edges import calls
from processors.spans.edges.calls import Calls, calls_of
from processors.spans.edges.edges import edges
from processors.spans.edges.shared_ids import told_apart
from processors.spans.edges.virtual import ends_of_ways, virtual_ends, ways_out
from processors.spans.sampling.sampler import Sampler
from processors.stage import PaneView, Tables, Window
from schemas.spans import SpanBatch


@dataclass(frozen=True, slots=True)
class SeenEnds:
    """A note for later panes: the ends that edges of a pane's spans may have."""

    identities: pl.Series
    """Of services by version, databases and queues, each once."""
    ways: pl.Series
    """What is written on ways that may lead out of the mesh, each once."""

    @classmethod
    def of(cls, spans: pl.DataFrame, found: Calls, labels: Labels) -> "SeenEnds":
        """Of a pane's spans, row by row those of ``found``."""
        named = pl.concat([found.nodes["identity"].unique(), virtual_ends(spans, found, labels)])
        return cls(named, ways_out(found))

    def new(
        self, met: Sequence["SeenEnds"], settled_panes: int, limits: LabelLimits, own: Calls
    ) -> pl.Series:
        """The ends that are new by what earlier panes met, where these are more than may be."""
        most = limits.new_services
        named = Past([ends.identities for ends in met], settled_panes, limits.nodes).new(
            self.identities, most
        )
        ways = Past([ends.ways for ends in met], settled_panes, limits.nodes).new(self.ways, most)
        found = [self.identities.clear()]
        if len(named) > most:
            found.append(named)
        if len(ways) > most:
            found.append(ends_of_ways(ways, own))
        return pl.concat(found)


class Edges:
    """Leaves Calls for the panes around, and Entries of a decided pane."""

    def __init__(self, settings: ProcessorSettings, sampler: Sampler) -> None:  # noqa: ARG002 - as every stage
        self._wait = settings.wait
        self._lookback_panes = settings.lookback_panes
        self._limits = settings.labels
        self._dimensions = settings.dimensions

    def close(self, pane: PaneView[SpanBatch]) -> Tables:
        """See processors.stage.Stage."""
        spans = pane.own[PaneSpans]
        if spans.frame.height:
            of_span = pane.own.get(SpanDimensions)
            found = calls_of(
                pane.number,
                spans.frame,
                pane.batch,
                spans.labels,
                first=spans.first,
                slots=spans.slots,
                dimensions=None if of_span is None else of_span.keys(pane.number),
            )
            pane.seen.leave(found)
            pane.seen.leave(SeenEnds.of(spans.frame, found, spans.labels))
        return {}

    def decide(self, pane: PaneView[SpanBatch], window: Window) -> Tables:
        """See processors.stage.Stage."""
        spans = pane.own[PaneSpans]
        if spans.frame.is_empty():
            return {}
        seen = window.seen(Calls)
        around = calls.Window(pane.number, self._wait, pane.time, seen)
        around = told_apart(around, spans.first, window.seen(SeenSpans), self._lookback_panes)
        half = self._lookback_panes // 2
        new_ends = None
        if (met := pane.met(SeenEnds, half)) is not None:
            new_ends = pane.seen[SeenEnds].new(met, half, self._limits, seen[pane.number])
        dimensions = None
        if (own := pane.own.get(Dimensions)) is not None:
            seen_dimensions = window.seen(SeenDimensions)
            dimensions = WindowDimensions(
                pane.number, own, seen_dimensions, self._dimensions, self._lookback_panes
            )
        return edges(
            spans.frame,
            spans.first,
            spans.labels,
            around,
            self._limits,
            lookback=self._lookback_panes,
            ends=spans.ends.rows,
            notes=pane.own,
            new_ends=new_ends,
            dimensions=dimensions,
        )
