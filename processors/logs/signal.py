"""The signal of log records: its stages, in the order in which a pane passes them."""

from functools import partial

from processors.identities import Deduplicate
from processors.logs.store import StoreLogs
from processors.pane_processor import PaneProcessor, Signal
from processors.redaction.batches import redact_logs
from processors.redaction.redaction import Redaction
from processors.settings import ProcessorSettings
from processors.stage import Stage
from schemas import otlp, topics
from schemas.logs import LogBatch
from schemas.otlp.picking import pick
from schemas.records import Commit, TopicPartition
from schemas.redaction import CREDENTIALS_ALONE, RedactionRules


def log_stages(settings: ProcessorSettings) -> tuple[Stage[LogBatch], ...]:
    """The stages, in the order in which a pane passes them."""
    return (Deduplicate[LogBatch](lambda batch: batch.logs, settings.lookback_panes), StoreLogs())


def log_signal(settings: ProcessorSettings, rules: RedactionRules = CREDENTIALS_ALONE) -> Signal[LogBatch]:
    """The signal of ``otlp_logs``."""
    limits, redaction = settings.limits, Redaction.of(rules)
    return Signal(
        decode=lambda payloads: redact_logs(otlp.decode_logs(payloads, payloads.clusters, limits), redaction),
        weigh=partial(otlp.weigh, topics.LOGS),
        pick=partial(pick, topics.LOGS),
        stages=log_stages(settings),
        mend=partial(otlp.mend, topics.LOGS),
    )


def log_processor(
    tp: TopicPartition,
    settings: ProcessorSettings,
    commit: Commit | None = None,
    rules: RedactionRules = CREDENTIALS_ALONE,
) -> PaneProcessor[LogBatch]:
    """Rows and ledger of one partition of ``otlp_logs``. Raises ValueError for a partition that the settings
    do not have, or a commit that meshflow did not write.
    """
    return PaneProcessor(tp, settings, log_signal(settings, rules), commit)
