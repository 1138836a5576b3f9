"""The signal of log records: its stages, in the order in which a pane passes them."""

from functools import partial

from processors.identities import Deduplicate
from processors.logs.store import StoreLogs
from processors.pane_processor import PaneProcessor, Signal
from processors.settings import ProcessorSettings
from processors.stage import Stage
from schemas import otlp, topics
from schemas.logs import LogBatch
from schemas.otlp.picking import pick
from schemas.records import Commit, TopicPartition

LOGS: tuple[Stage[LogBatch], ...] = (Deduplicate[LogBatch](lambda batch: batch.logs), StoreLogs())


def log_signal(settings: ProcessorSettings) -> Signal[LogBatch]:
    """The signal of ``otlp_logs``."""
    limits = settings.limits
    return Signal(
        decode=lambda payloads: otlp.decode_logs(payloads, payloads.clusters, limits),
        weigh=partial(otlp.weigh, topics.LOGS),
        pick=partial(pick, topics.LOGS),
        stages=LOGS,
        mend=partial(otlp.mend, topics.LOGS),
    )


def log_processor(
    tp: TopicPartition, settings: ProcessorSettings, commit: Commit | None = None
) -> PaneProcessor[LogBatch]:
    """Rows and ledger of one partition of ``otlp_logs``. Raises ValueError for a partition that the settings
    do not have, or a commit that meshflow did not write.
    """
    return PaneProcessor(tp, settings, log_signal(settings), commit)
