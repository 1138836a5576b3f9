"""Captured Export requests for a replay: which signal they are, when they were sent, their times moved, what
a receiver answered.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from schemas.errors import MalformedOtlp
from schemas.topics import LOGS, METRICS, SPANS

_REQUESTS: dict[str, type[Message]] = {
    SPANS: ExportTraceServiceRequest,
    METRICS: ExportMetricsServiceRequest,
    LOGS: ExportLogsServiceRequest,
}
_RESPONSES: dict[str, tuple[type[Message], str]] = {
    SPANS: (ExportTraceServiceResponse, "rejected_spans"),
    METRICS: (ExportMetricsServiceResponse, "rejected_data_points"),
    LOGS: (ExportLogsServiceResponse, "rejected_log_records"),
}
_TIMELESS = frozenset(
    {
        "resource",
        "scope",
        "attributes",
        "body",
        "links",
        "status",
        "filtered_attributes",
        "positive",
        "negative",
    }
)
_YEAR_NS = 365 * 86_400 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Captured:
    """One Export request, decoded."""

    topic: str
    message: Any
    newest_ns: int
    """The newest time in it, about when it was sent; 0 when it has none."""
    items: int
    """Spans, data points or log records."""

    def shifted(self, by_ns: int) -> bytes:
        """The request with every time moved by ``by_ns``; a time in microseconds (Envoy's stat sink writes
        such) by as much of its own.
        """
        moved = type(self.message)()
        moved.CopyFrom(self.message)
        for holder, field in _times(moved):
            time = getattr(holder, field)
            if time > _YEAR_NS:
                setattr(holder, field, max(0, time + by_ns))
            elif time > _YEAR_NS // 1000:
                setattr(holder, field, max(0, time + by_ns // 1000))
        return bytes(moved.SerializeToString())


def read(request: bytes, likely: str | None = None) -> Captured:
    """Decode a request whose signal is not known; ``likely`` is the topic to try first. Raises MalformedOtlp
    when it is none of them.
    """
    for topic in sorted(_REQUESTS, key=lambda topic: topic != likely):
        message = _REQUESTS[topic]()
        try:
            message.ParseFromString(request)
        except DecodeError:
            continue
        if all(_plausible(topic, item) for item in _items(topic, message)):
            newest_ns = max((getattr(holder, field) for holder, field in _times(message)), default=0)
            return Captured(
                topic, message, newest_ns, sum(_weight(topic, item) for item in _items(topic, message))
            )
    raise MalformedOtlp("not an OTLP Export request of traces, metrics or logs")


def refused(topic: str, response: bytes) -> tuple[int, str]:
    """How many items of a request its receiver rejected, and why (0, "" when none). Raises MalformedOtlp."""
    kind, field = _RESPONSES[topic]
    message: Any = kind()
    try:
        message.ParseFromString(response)
    except DecodeError as error:
        raise MalformedOtlp("the answer is not an OTLP Export response") from error
    return int(getattr(message.partial_success, field)), str(message.partial_success.error_message)


def _items(topic: str, message: Any) -> Iterator[Any]:
    if topic == SPANS:
        return (
            span
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        )
    if topic == METRICS:
        return (
            metric
            for resource in message.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        )
    return (
        record
        for resource in message.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    )


def _plausible(topic: str, item: Any) -> bool:
    """Whether the bytes of an item make sense as this signal: the three messages have the same shape down to
    their items.
    """
    if topic == SPANS:
        return (
            len(item.trace_id) == 16 and len(item.span_id) == 8 and bool(item.start_time_unix_nano > _YEAR_NS)
        )
    if topic == METRICS:
        return bool(item.name) and item.WhichOneof("data") is not None
    return bool(item.time_unix_nano or item.observed_time_unix_nano)


def _weight(topic: str, item: Any) -> int:
    return len(getattr(item, item.WhichOneof("data")).data_points) if topic == METRICS else 1


def _times(message: Any) -> Iterator[tuple[Any, str]]:
    """Every (message, field name) that holds a time, attributes left out."""
    for field, value in message.ListFields():
        if field.name.endswith("time_unix_nano"):
            yield message, field.name
        elif field.type == FieldDescriptor.TYPE_MESSAGE and field.name not in _TIMELESS:
            for child in value if field.is_repeated else (value,):
                yield from _times(child)
