"""Edges as a stage: look-up rows when a pane closes, edges when its window is complete."""

from processors.settings import ProcessorSettings
from processors.spans.deduplicate import PaneSpans
from processors.spans.edges import calls
from processors.spans.edges.calls import Calls, calls_of
from processors.spans.edges.edges import edges
from processors.spans.sampling.sampler import Sampler
from processors.stage import PaneView, Tables, Window
from schemas.spans import SpanBatch


class Edges:
    """Leaves Calls for the panes around."""

    def __init__(self, settings: ProcessorSettings, sampler: Sampler) -> None:  # noqa: ARG002 - as every stage
        self._wait = settings.wait
        self._lookback_panes = settings.lookback_panes
        self._limits = settings.labels

    def close(self, pane: PaneView[SpanBatch]) -> Tables:
        """See processors.stage.Stage."""
        spans = pane.own[PaneSpans]
        if spans.frame.height:
            found = calls_of(
                pane.number, spans.frame, pane.batch, spans.labels, first=spans.first, slots=spans.slots
            )
            pane.seen.leave(found)
        return {}

    def decide(self, pane: PaneView[SpanBatch], window: Window) -> Tables:
        """See processors.stage.Stage."""
        spans = pane.own[PaneSpans]
        if spans.frame.is_empty():
            return {}
        seen = window.seen(Calls)
        around = calls.Window.of(pane.number, self._wait, pane.time, seen)
        met = pane.met(Calls, self._lookback_panes // 2)
        identities = None if met is None else [each.nodes["identity"] for each in met]
        return edges(spans.frame, spans.first, spans.labels, around, self._limits, met=identities)
