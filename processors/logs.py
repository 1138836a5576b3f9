"""Log records of one partition of ``otlp_logs`` -> ``otel_logs``."""

from collections.abc import Mapping, Sequence

from processors.items import ItemProcessor
from processors.settings import ProcessorSettings
from schemas.otlp.columns import Items
from schemas.otlp.logs import decode_logs
from schemas.records import Commit, TopicPartition

_ORDER = ("ServiceName", "Timestamp")


class LogsProcessor(ItemProcessor):
    """Stores each log record once."""

    def __init__(self, tp: TopicPartition, settings: ProcessorSettings, commit: Commit | None = None) -> None:
        super().__init__(tp, settings, _decode, _ORDER, commit)


def _decode(payloads: Sequence[bytes]) -> Mapping[str, Items]:
    return {"otel_logs": decode_logs(payloads)}
