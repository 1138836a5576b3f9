"""Data points of one partition of ``otlp_metrics`` -> ``otel_metrics_*``."""

from processors.items import ItemProcessor
from processors.settings import ProcessorSettings
from schemas.otlp.points import decode_points
from schemas.records import Commit, TopicPartition

_ORDER = ("ServiceName", "MetricName", "TimeUnix")


class MetricsProcessor(ItemProcessor):
    """Stores each data point once."""

    def __init__(self, tp: TopicPartition, settings: ProcessorSettings, commit: Commit | None = None) -> None:
        super().__init__(tp, settings, decode_points, _ORDER, commit)
