"""OTLP/JSON requests as OTLP protobuf.

OTLP specification, "JSON Protobuf Encoding": proto3 JSON, but trace and span ids are hexadecimal (not base64)
and enums are integers; fields that the receiver does not know are ignored. Names in snake_case and enum names
are taken as well, as proto3 JSON parsers do. A name that is none of an enum's is an error: as a number it
would be 0, and a failed call a good one.
"""

import base64
import binascii
from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData, SeverityNumber
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    MetricsData,
    NumberDataPoint,
    SummaryDataPoint,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData

from schemas import topics
from schemas.errors import MalformedOtlp
from schemas.otlp.json_text import load
from schemas.otlp.mended import MARK, Mended

MAX_NESTING = 100
"""How deep messages may nest (attribute values are recursive); protobuf parsers allow as much."""

_NESTED = 4
"""How many levels an array or a map of a plain value takes below its AnyValue."""

_MESSAGES: dict[str, type[Message]] = {
    topics.SPANS: TracesData,
    topics.METRICS: MetricsData,
    topics.LOGS: LogsData,
}

_POINTS: dict[str, type[Message]] = {
    "gauge": NumberDataPoint,
    "sum": NumberDataPoint,
    "histogram": HistogramDataPoint,
    "exponentialHistogram": ExponentialHistogramDataPoint,
    "exponential_histogram": ExponentialHistogramDataPoint,
    "summary": SummaryDataPoint,
}

# From a request to objects; every step is the names that one level may have.
_Path = tuple[tuple[str, ...], ...]
_SPANS: _Path = (("resourceSpans", "resource_spans"), ("scopeSpans", "scope_spans"), ("spans",))
_LOGS: _Path = (
    ("resourceLogs", "resource_logs"),
    ("scopeLogs", "scope_logs"),
    ("logRecords", "log_records"),
)
_METRICS: _Path = (("resourceMetrics", "resource_metrics"), ("scopeMetrics", "scope_metrics"), ("metrics",))
_DATA_POINTS = ("dataPoints", "data_points")

_WITH_IDS: dict[str, tuple[_Path, ...]] = {
    topics.SPANS: (_SPANS, (*_SPANS, ("links",))),
    topics.LOGS: (_LOGS,),
    topics.METRICS: ((*_METRICS, tuple(_POINTS), _DATA_POINTS, ("exemplars",)),),
}
_WITH_ENUMS: dict[str, tuple[tuple[_Path, tuple[str, ...], Sequence[str]], ...]] = {
    topics.SPANS: (
        (_SPANS, ("kind",), Span.SpanKind.keys()),
        ((*_SPANS, ("status",)), ("code",), Status.StatusCode.keys()),
    ),
    topics.LOGS: ((_LOGS, ("severityNumber", "severity_number"), SeverityNumber.keys()),),
    topics.METRICS: (
        (
            (*_METRICS, tuple(_POINTS)),
            ("aggregationTemporality", "aggregation_temporality"),
            AggregationTemporality.keys(),
        ),
    ),
}
_ITEMS: dict[str, tuple[tuple[_Path, tuple[str, ...], type[Message]], ...]] = {
    topics.SPANS: ((_SPANS[:-1], _SPANS[-1], Span),),
    topics.LOGS: ((_LOGS[:-1], _LOGS[-1], LogRecord),),
    topics.METRICS: tuple(((*_METRICS, (data,)), _DATA_POINTS, point) for data, point in _POINTS.items()),
}
"""Paths to what holds items, the names of their list, and what they are."""

_VALUES = ("arrayValue", "array_value", "kvlistValue", "kvlist_value")

_SHOWN = 400  # characters of an error

_IDS = ("traceId", "trace_id", "spanId", "span_id", "parentSpanId", "parent_span_id")
_NO_ID: dict[str, Any] = {}
"""In place of an id that is not hexadecimal: no parser takes it."""


def to_protobuf(topic: str, body: bytes) -> Mended:
    """An OTLP/JSON request as a serialised ``TracesData`` / ``MetricsData`` / ``LogsData`` (the same wire as
    its Export request), repaired as ``schemas.otlp.mend`` does.

    An item that is not OTLP/JSON is left out. Ids of a wrong length pass (they are rejected one by one
    later). Raises MalformedOtlp, with the place, where the request is not JSON, names a value of an enum that
    is none, or has no item that can be read.
    """
    request, repaired = load(body)
    if not isinstance(request, dict):
        raise MalformedOtlp("not OTLP/JSON: the request is not an object")
    try:
        return _converted(topic, request, repaired)
    except RecursionError:
        raise MalformedOtlp(f"not OTLP/JSON: nested more than {MAX_NESTING} deep") from None


def _converted(topic: str, request: dict[str, Any], repaired: int) -> Mended:
    _check_enums(topic, request)
    fault = _decode_ids(topic, request)
    if fault is None:
        message, fault = _parsed(_MESSAGES[topic], request)
        if message is not None:
            return Mended(message.SerializeToString(), repaired, 0)
    cut = _cut_values(request)
    dropped, kept = _drop_items(topic, request)
    message, other = _parsed(_MESSAGES[topic], request)
    if message is None or (dropped and not kept):
        raise MalformedOtlp(f"not OTLP/JSON: {other or fault}")
    return Mended(message.SerializeToString(), repaired + cut, dropped, fault if dropped else "")


def _parsed(kind: type[Message], value: Any) -> tuple[Message | None, str]:
    """A message, or None and why there is none."""
    message = kind()
    try:
        ParseDict(value, message, ignore_unknown_fields=True, max_recursion_depth=MAX_NESTING)
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # ParseDict lets through whatever odd values make its code raise
        return None, _shown(error)
    return message, ""


def _shown(error: Exception) -> str:
    """Its text; ParseDict quotes all of a value that it does not like."""
    text = str(error)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} ... {text[-_SHOWN // 2 :]}"


def _walk(holder: Any, path: _Path) -> Iterator[dict[str, Any]]:
    """Every object at ``path``; what has another shape is passed over, for the parser to complain about."""
    if isinstance(holder, list):
        for item in holder:
            yield from _walk(item, path)
    elif isinstance(holder, dict) and not path:
        yield holder
    elif isinstance(holder, dict):
        for name in path[0]:
            if name in holder:
                yield from _walk(holder[name], path[1:])


def _check_enums(topic: str, request: dict[str, Any]) -> None:
    """Raises MalformedOtlp: a name is none of its enum's."""
    for path, names, known in _WITH_ENUMS[topic]:
        for holder in _walk(request, path):
            for name in names:
                value = holder.get(name)
                if isinstance(value, str) and value not in known and not _is_integer(value):
                    raise MalformedOtlp(f"{name} {value[:64]!r} is none of {', '.join(known)}")


def _is_integer(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True


def _decode_ids(topic: str, request: dict[str, Any]) -> str | None:
    """Make base64 of hexadecimal ids, as proto3 JSON has it; the first one that is not hexadecimal."""
    fault = None
    for path in _WITH_IDS[topic]:
        for holder in _walk(request, path):
            for name in _IDS:
                text = holder.get(name)
                if isinstance(text, str):
                    try:
                        holder[name] = base64.b64encode(binascii.unhexlify(text)).decode()
                    except (binascii.Error, ValueError):
                        fault = fault or f"{name} {text[:64]!r} is not hexadecimal"
                        holder[name] = _NO_ID
    return fault


def _cut_values(request: dict[str, Any]) -> int:
    """Replace what nests too deep; how many values that were."""
    cut = 0
    waiting: list[tuple[Any, int]] = [(request, 0)]
    while waiting:
        value, level = waiting.pop()
        if isinstance(value, list):
            waiting += ((each, level) for each in value)
        elif isinstance(value, dict):
            if MAX_NESTING - level < _NESTED:
                for name in _VALUES:
                    if name in value:
                        del value[name]
                        value["stringValue"] = MARK
                        cut += 1
            waiting += ((each, level + 1) for each in value.values())
    return cut


def _drop_items(topic: str, request: dict[str, Any]) -> tuple[int, int]:
    """Leave out the items that are not OTLP/JSON; how many were, and how many are left."""
    dropped = kept = 0
    for path, names, kind in _ITEMS[topic]:
        for holder in _walk(request, path):
            for name in names:
                items = holder.get(name)
                if isinstance(items, list):
                    good = [item for item in items if _parsed(kind, item)[0] is not None]
                    dropped, kept = dropped + len(items) - len(good), kept + len(good)
                    holder[name] = good
    return dropped, kept
