"""The signal of spans: its stages, in the order in which a pane passes them."""

from functools import partial
from typing import NamedTuple

from processors.pane_processor import PaneProcessor, Signal
from processors.redaction.batches import redact_spans
from processors.redaction.redaction import Redaction
from processors.settings import ProcessorSettings
from processors.spans.deduplicate import Deduplicate
from processors.spans.dimensions import ReadDimensions
from processors.spans.edges.stage import Edges
from processors.spans.red import Red
from processors.spans.sampling.sampler import Sampler
from processors.spans.sampling.settings import SamplingSettings
from processors.spans.sampling.stage import Sample
from processors.spans.traces import StoreTraces
from schemas import otlp, topics
from schemas.otlp.picking import pick
from schemas.records import Commit, TopicPartition
from schemas.redaction import CREDENTIALS_ALONE, RedactionRules
from schemas.spans import SpanBatch

SPANS = (Deduplicate, ReadDimensions, Edges, Red, Sample)
"""Each is made of the settings and the sampler; StoreTraces follows. Edges and Red count by what
ReadDimensions leaves, Red by the Entries that Edges leave.
"""


class _Given(NamedTuple):
    """What every stage of SPANS is made of."""

    settings: ProcessorSettings
    sampler: Sampler


def span_signal(
    settings: ProcessorSettings, sampling: SamplingSettings, rules: RedactionRules = CREDENTIALS_ALONE
) -> Signal[SpanBatch]:
    """The signal of ``otlp_spans``."""
    given = _Given(settings, Sampler(sampling, settings.pane_ns, settings.partitions))
    keys = tuple(dict.fromkeys((*given.sampler.attribute_keys, *settings.dimension_keys)))
    limits = settings.limits
    redaction = Redaction.of(rules)
    return Signal(
        decode=lambda payloads: redact_spans(
            otlp.decode_spans(payloads, keys, payloads.clusters, limits), redaction
        ),
        stages=(*(stage(*given) for stage in SPANS), StoreTraces(settings, redaction)),
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
    rules: RedactionRules = CREDENTIALS_ALONE,
) -> PaneProcessor[SpanBatch]:
    """RED, edges, kept traces and ledger of one partition of ``otlp_spans``. Raises ValueError for a
    partition that the settings do not have, or a commit that meshflow did not write.
    """
    return PaneProcessor(tp, settings, span_signal(settings, sampling, rules), commit)
