"""The signal of data points: its stages, in the order in which a pane passes them."""

from functools import partial

from processors.identities import Deduplicate
from processors.pane_processor import PaneProcessor, Signal
from processors.points.certificates import Certificates
from processors.points.control_plane import ControlPlane
from processors.points.count import CountIncrements
from processors.points.proxies import Proxies
from processors.points.store import StorePoints
from processors.points.traffic import Traffic
from processors.points.upstreams import Upstreams
from processors.redaction.batches import redact_points
from processors.redaction.redaction import Redaction
from processors.settings import ProcessorSettings
from processors.stage import Stage
from schemas import otlp, topics
from schemas.otlp.picking import pick
from schemas.points import PointBatch
from schemas.records import Commit, TopicPartition
from schemas.redaction import CREDENTIALS_ALONE, RedactionRules


def point_stages(settings: ProcessorSettings) -> tuple[Stage[PointBatch], ...]:
    """The stages, in the order in which a pane passes them."""
    return (
        Deduplicate[PointBatch](lambda batch: batch.points, settings.lookback_panes),
        CountIncrements(settings.metrics_lookback_panes, settings.metrics.families),
        *(stage(settings) for stage in (Traffic, Upstreams, Proxies, ControlPlane, Certificates)),
        StorePoints(settings.metrics.keep),
    )


def point_signal(
    settings: ProcessorSettings, rules: RedactionRules = CREDENTIALS_ALONE
) -> Signal[PointBatch]:
    """The signal of ``otlp_metrics``."""
    limits, redaction = settings.limits, Redaction.of(rules)
    return Signal(
        decode=lambda payloads: redact_points(
            otlp.decode_points(payloads, payloads.clusters, limits), redaction
        ),
        stages=point_stages(settings),
        lookback=settings.metrics_lookback_panes,
        weigh=partial(otlp.weigh, topics.METRICS),
        pick=partial(pick, topics.METRICS),
        mend=partial(otlp.mend, topics.METRICS),
    )


def point_processor(
    tp: TopicPartition,
    settings: ProcessorSettings,
    commit: Commit | None = None,
    rules: RedactionRules = CREDENTIALS_ALONE,
) -> PaneProcessor[PointBatch]:
    """Rows and ledger of one partition of ``otlp_metrics``. Raises ValueError for a partition that the
    settings do not have, or a commit that meshflow did not write.
    """
    return PaneProcessor(tp, settings, point_signal(settings, rules), commit)
