"""The signal of spans: its stages, in the order in which a pane passes them."""

from functools import partial
from typing import NamedTuple

from processors.pane_processor import PaneProcessor, Signal
from processors.settings import ProcessorSettings
from processors.spans.deduplicate import Deduplicate
from processors.spans.edges.stage import Edges
from processors.spans.red import Red
from processors.spans.sampling.sampler import Sampler
from processors.spans.sampling.settings import SamplingSettings
from processors.spans.sampling.stage import Sample
from processors.spans.traces import StoreTraces
from schemas import otlp, topics
from schemas.otlp.picking import pick
from schemas.records import Commit, TopicPartition
from schemas.spans import SpanBatch

SPANS = (Deduplicate, Red, Edges, Sample, StoreTraces)
"""Each is made of the settings and the sampler."""


class _Given(NamedTuple):
    """What every stage is made of."""

    settings: ProcessorSettings
    sampler: Sampler


def span_signal(settings: ProcessorSettings, sampling: SamplingSettings) -> Signal[SpanBatch]:
    """The signal of ``otlp_spans``."""
    given = _Given(settings, Sampler(sampling, settings.pane_ns, settings.partitions))
    keys, limits = given.sampler.attribute_keys, settings.limits
    return Signal(
        decode=lambda payloads: otlp.decode_spans(payloads, keys, payloads.clusters, limits),
        stages=tuple(stage(*given) for stage in SPANS),
        weigh=partial(otlp.weigh, topics.SPANS),
        pick=partial(pick, topics.SPANS),
        wait=settings.wait,
        mend=partial(otlp.mend, topics.SPANS),
    )


def span_processor(
    tp: TopicPartition,
    settings: ProcessorSettings,
    sampling: SamplingSettings,
    commit: Commit | None = None,
) -> PaneProcessor[SpanBatch]:
    """RED, edges, kept traces and ledger of one partition of ``otlp_spans``. Raises ValueError for a
    partition that the settings do not have, or a commit that meshflow did not write.
    """
    return PaneProcessor(tp, settings, span_signal(settings, sampling), commit)
