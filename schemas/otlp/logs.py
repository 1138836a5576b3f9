"""LogsData -> rows of ``otel_logs``, on opentelemetry-proto.

Columns as the OpenTelemetry Collector's ClickHouse exporter fills them
(exporter/clickhouseexporter/exporter_logs.go).
"""

from collections.abc import Sequence

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData

from schemas.otlp.columns import Contexts, Items, Rows, clamp_time, hex_id, parse
from schemas.otlp.text import attribute_texts, value_text

_COLUMNS = (
    "Timestamp", "TraceId", "SpanId", "TraceFlags", "SeverityText", "SeverityNumber", "Body", "LogAttributes", "EventName",
)  # fmt: skip


def decode_logs(payloads: Sequence[bytes]) -> Items:
    """Log records of LogsData payloads (b"" allowed), one row each. Raises MalformedOtlp with ``record``."""
    contexts, rows = Contexts(), Rows("otel_logs", _COLUMNS)
    for message in parse(LogsData, payloads):
        for of_resource in message.resource_logs:
            for of_scope in of_resource.scope_logs:
                context = contexts.add(
                    of_resource.resource, of_resource.schema_url, of_scope.scope, of_scope.schema_url
                )
                for record in of_scope.log_records:
                    rows.add(context, context.identity(record.SerializeToString()), _values(record))
    return rows.items(contexts)


def _values(record: LogRecord) -> tuple[object, ...]:
    return (
        clamp_time(record.time_unix_nano or record.observed_time_unix_nano),
        hex_id(record.trace_id, 16),
        hex_id(record.span_id, 8),
        record.flags & 0xFF,  # the W3C trace flags are the low byte
        record.severity_text,
        record.severity_number & 0xFF,
        value_text(record.body),
        attribute_texts(record.attributes),
        record.event_name,
    )
