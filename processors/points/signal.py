"""The signal of data points: its stages, in the order in which a pane passes them."""

from functools import partial

from processors.identities import Deduplicate
from processors.pane_processor import PaneProcessor, Signal
from processors.points.store import StorePoints
from processors.settings import ProcessorSettings
from processors.stage import Stage
from schemas import otlp, topics
from schemas.otlp.picking import pick
from schemas.points import PointBatch
from schemas.records import Commit, TopicPartition

POINTS: tuple[Stage[PointBatch], ...] = (Deduplicate[PointBatch](lambda batch: batch.points), StorePoints())


def point_signal(settings: ProcessorSettings) -> Signal[PointBatch]:
    """The signal of ``otlp_metrics``."""
    limits = settings.limits
    return Signal(
        decode=lambda payloads: otlp.decode_points(payloads, payloads.clusters, limits),
        stages=POINTS,
        weigh=partial(otlp.weigh, topics.METRICS),
        pick=partial(pick, topics.METRICS),
        mend=partial(otlp.mend, topics.METRICS),
    )


def point_processor(
    tp: TopicPartition, settings: ProcessorSettings, commit: Commit | None = None
) -> PaneProcessor[PointBatch]:
    """Rows and ledger of one partition of ``otlp_metrics``. Raises ValueError for a partition that the
    settings do not have, or a commit that meshflow did not write.
    """
    return PaneProcessor(tp, settings, point_signal(settings), commit)
