"""OTLP bytes as text for people: JSON as far as they can be decoded, hex where they cannot."""

import json
from base64 import b64decode
from binascii import hexlify
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from schemas.topics import LOGS, METRICS, SPANS

_RESOURCES: dict[str, type[Message]] = {SPANS: ResourceSpans, METRICS: ResourceMetrics, LOGS: ResourceLogs}
_HEX_IDS = frozenset({"traceId", "spanId", "parentSpanId"})
_RESOURCE_TAG = 0x0A  # field 1, length-delimited
_LINE_BYTES = 32


def readable(topic: str, payload: bytes, max_chars: int = 1 << 20) -> str:
    """The resources of a payload of ``topic`` as OTLP/JSON, one after the other, ids in hex; bytes that are
    not such a resource as hex, with the reason. Text over ``max_chars`` is cut.
    """
    parts: list[str] = []
    at = size = 0
    while at < len(payload) and size <= max_chars:
        end, text = _resource(topic, payload, at, max_chars)
        parts.append(text)
        size += len(text)
        at = end
    text = "\n".join(parts) or "(empty)"
    return text if len(text) <= max_chars else f"{text[:max_chars]}\n... (cut; --raw writes all bytes)"


def _resource(topic: str, payload: bytes, at: int, max_chars: int) -> tuple[int, str]:
    """Where the resource at ``at`` ends, and its text."""
    kind = _RESOURCES.get(topic)
    head = _length(payload, at + 1) if kind and payload[at] == _RESOURCE_TAG else None
    if kind is None or head is None or head[0] + head[1] > len(payload):
        return len(payload), f"byte {at}: not OTLP from here on\n{_hex(payload[at:], max_chars)}"
    begin, length = head
    body = payload[begin : begin + length]
    try:
        message = kind()
        message.ParseFromString(body)
        fields = _with_hex_ids(MessageToDict(message))
    except (DecodeError, ValueError, RecursionError) as error:  # strings that are not UTF-8 are ValueErrors
        return (
            begin + length,
            f"byte {begin}: {kind.DESCRIPTOR.name} of {length} bytes: {error}\n{_hex(body, max_chars)}",
        )
    return begin + length, json.dumps(fields, indent=2)  # ASCII: nothing in it moves a terminal's cursor


def _length(payload: bytes, at: int) -> tuple[int, int] | None:
    """A varint: where it ends, and its value; None where there is none."""
    value = 0
    for i, byte in enumerate(payload[at : at + 5]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return at + i + 1, value
    return None


def _with_hex_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: b64decode(item).hex() if name in _HEX_IDS and isinstance(item, str) else _with_hex_ids(item)
            for name, item in value.items()
        }
    return [_with_hex_ids(item) for item in value] if isinstance(value, list) else value


def _hex(data: bytes, max_chars: int) -> str:
    shown = data[: max_chars // 4]
    lines = [
        f"  {at:06x}  {hexlify(line, ' ').decode():<{3 * _LINE_BYTES - 1}}  {_printable(line)}"
        for at in range(0, len(shown), _LINE_BYTES)
        for line in (shown[at : at + _LINE_BYTES],)
    ]
    return "\n".join(lines)


def _printable(line: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line)
