"""OTLP/JSON requests as OTLP protobuf.

OTLP specification, "JSON Protobuf Encoding": proto3 JSON, but trace and span ids are hexadecimal (not base64)
and enums are integers; names that the receiver does not know are ignored. Names in snake_case and enum names
are taken as well, as proto3 JSON parsers do.
"""

import base64
import binascii
from collections.abc import Iterator
from typing import Any

import orjson
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas import topics
from schemas.errors import MalformedOtlp

MAX_NESTING = 100
"""How deep messages may nest (attribute values are recursive); protobuf parsers allow as much."""

_MESSAGES: dict[str, type[Message]] = {
    topics.SPANS: TracesData,
    topics.METRICS: MetricsData,
    topics.LOGS: LogsData,
}

_POINTS = ("gauge", "sum", "histogram", "exponentialHistogram", "exponential_histogram", "summary")

# From a request to each object that has ids; every step is the names that one level may have.
_PATHS: dict[str, tuple[tuple[tuple[str, ...], ...], ...]] = {
    topics.SPANS: (
        (("resourceSpans", "resource_spans"), ("scopeSpans", "scope_spans"), ("spans",)),
        (("resourceSpans", "resource_spans"), ("scopeSpans", "scope_spans"), ("spans",), ("links",)),
    ),
    topics.LOGS: (
        (("resourceLogs", "resource_logs"), ("scopeLogs", "scope_logs"), ("logRecords", "log_records")),
    ),
    topics.METRICS: (
        (
            ("resourceMetrics", "resource_metrics"),
            ("scopeMetrics", "scope_metrics"),
            ("metrics",),
            _POINTS,
            ("dataPoints", "data_points"),
            ("exemplars",),
        ),
    ),
}

_SHOWN = 400  # characters of an error

_IDS = ("traceId", "trace_id", "spanId", "span_id", "parentSpanId", "parent_span_id")


def to_protobuf(topic: str, body: bytes) -> bytes:
    """An OTLP/JSON request as a serialised ``TracesData`` / ``MetricsData`` / ``LogsData`` (the same wire as
    its Export request).

    Ids of a wrong length pass (they are rejected one by one later). Raises MalformedOtlp where it is not
    OTLP/JSON, with the place.
    """
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedOtlp(f"not JSON: {error}") from error
    if not isinstance(request, dict):
        raise MalformedOtlp("not OTLP/JSON: the request is not an object")
    message = _MESSAGES[topic]()
    try:
        for path in _PATHS[topic]:
            for holder in _walk(request, path):
                _hex_to_base64(holder)
        ParseDict(request, message, ignore_unknown_fields=True, max_recursion_depth=MAX_NESTING)
        return message.SerializeToString()
    except MalformedOtlp:
        raise
    except RecursionError:
        raise MalformedOtlp(f"not OTLP/JSON: nested more than {MAX_NESTING} deep") from None
    except MemoryError:
        raise
    except Exception as error:  # ParseDict lets through whatever odd values make its code raise
        raise MalformedOtlp(f"not OTLP/JSON: {_shown(error)}") from None


def _shown(error: Exception) -> str:
    """Its text; ParseDict quotes all of a value that it does not like."""
    text = str(error)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} ... {text[-_SHOWN // 2 :]}"


def _walk(holder: Any, path: tuple[tuple[str, ...], ...]) -> Iterator[dict[str, Any]]:
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


def _hex_to_base64(holder: dict[str, Any]) -> None:
    for name in _IDS:
        text = holder.get(name)
        if isinstance(text, str):
            try:
                holder[name] = base64.b64encode(binascii.unhexlify(text)).decode()
            except (binascii.Error, ValueError) as error:
                raise MalformedOtlp(f"{name} {text[:64]!r} is not hexadecimal") from error
