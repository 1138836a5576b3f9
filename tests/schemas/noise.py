"""OTLP as no SDK writes it but protobuf allows (or just does not).

Every field of every message by its descriptor, in any order, any number of times, with unknown fields, wrong
wire types, groups, overlong varints, and now and then something malformed.
"""

from collections.abc import Sequence
from random import Random
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas import topics
from schemas.otlp.semantics import PROXY_KEYS, RESOURCE_KEYS, SPAN_KEYS, SPAN_PARTS

MESSAGES: dict[str, type[Message]] = {
    topics.SPANS: TracesData,
    topics.METRICS: MetricsData,
    topics.LOGS: LogsData,
}

_KEYS = [
    key
    for table in (SPAN_KEYS, SPAN_PARTS, RESOURCE_KEYS, PROXY_KEYS)
    for keys in table.values()
    for key in keys
] + [
    "k",
    "",
    "größe",
    "x" * 200,
]
_TEXTS = [
    "",
    "-",
    "true",
    "200",
    "404",
    "503",
    "UNAVAILABLE",
    "send",
    "create",
    "70000",
    "proxy",
    "envoy",
    "UO",
    "grpc",
    "mirror",
    "a-shadow",
    "a-shadow:80",
    "http://b@a-shadow:8/x",
    "1099511627777",
    "4096",
    "sidecar~1.2.3.4~a-0.b~c",
    "a",
    "größe",
    '\u2028"\\\n\x01',
    "y" * 130,
    "日本",
]
_INTEGERS = [
    0,
    1,
    2,
    3,
    5,
    6,
    404,
    127,
    128,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
]
_DOUBLES = [
    "0000000000000000",
    "0000000000000080",
    "000000000000f07f",
    "000000000000f87f",
    "9a9999999999b93f",
    "50efe2d6e41a4b44",
]
_IDS = [bytes(range(16)), bytes(range(8)), b"\x07" * 16, b"\x07" * 8, bytes(16), bytes(8), b"", b"short"]
_LENGTH = {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE}
_FIXED64 = {FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64, FieldDescriptor.TYPE_DOUBLE}
_MAX_DEPTH = 9


def make_noise(random: Random, topic: str, malformed: float = 0.0) -> bytes:
    """A request of this topic; ``malformed``: the share of strings that are not UTF-8 and of lengths that are
    wrong.
    """
    return _Noise(random, malformed).message(cast("Descriptor", MESSAGES[topic].DESCRIPTOR), 0)


def mutated(random: Random, data: bytes) -> bytes:
    """The same bytes with a few changed, cut out, doubled, or cut off."""
    out = bytearray(data)
    for _ in range(random.randint(1, 3)):
        at, size = random.randrange(len(out) + 1), random.randint(1, 9)
        match random.randrange(5):
            case 0:
                out[at : at + 1] = bytes([random.randrange(256)])
            case 1:
                del out[at : at + size]
            case 2:
                out[at:at] = out[at : at + size]
            case 3:
                out[at:at] = random.randbytes(size)
            case 4 if at < len(out):
                out[at] ^= 1 << random.randrange(8)
            case _:
                del out[at:]
    return bytes(out)


class _Noise:
    def __init__(self, random: Random, malformed: float) -> None:
        self.random = random
        self.malformed = malformed

    def message(self, descriptor: Descriptor, depth: int) -> bytes:
        if descriptor.name == "KeyValue" and self.random.random() < 0.8:
            return self.attribute(depth)
        count = self.random.choice([0, 1, 2, 3, 5]) if depth > 3 else self.random.choice([1, 2, 4])
        body = b"".join(self.field(descriptor, depth) for _ in range(count))
        if descriptor.name in ("Span", "LogRecord") and self.random.random() < 0.8:
            trace_id, span_id = (1, 2) if descriptor.name == "Span" else (9, 10)
            body += self.framed(trace_id, self.random.randbytes(16)) + self.framed(
                span_id, self.random.randbytes(8)
            )
        return body

    def attribute(self, depth: int) -> bytes:
        """As SDKs write them: key, then value."""
        value = (
            self.framed(1, self.text(_TEXTS))
            if self.random.random() < 0.6
            else self.message(AnyValue.DESCRIPTOR, depth + 1)
        )
        return self.framed(1, self.text(_KEYS)) + self.framed(2, value)

    def field(self, descriptor: Descriptor, depth: int) -> bytes:
        roll = self.random.random()
        fields = descriptor.fields
        if depth < 3 and self.random.random() < 0.7:
            fields = [field for field in fields if field.message_type] or fields
        if roll < 0.08 or not fields:
            return self.unknown(self.random.choice([17, 99, 2047, (1 << 29) - 1]), depth)
        field = self.random.choice(fields)
        if roll < 0.12:  # a wire type that is not the field's
            return self.unknown(
                field.number, depth, [0, 1, 3, 5] if field.type in _LENGTH or field.is_repeated else [2, 3]
            )
        return self.known(field, depth)

    def known(self, field: FieldDescriptor, depth: int) -> bytes:
        kind = field.type
        if field.is_repeated and kind not in _LENGTH and self.random.random() < 0.7:
            packed = b"".join(self.scalar(kind) for _ in range(self.random.randrange(4)))
            return self.framed(
                field.number, packed if self.random.random() >= self.malformed else packed + b"\x80"
            )
        if field.message_type:
            return self.framed(
                field.number, self.message(field.message_type, depth + 1) if depth < _MAX_DEPTH else b""
            )
        if kind == FieldDescriptor.TYPE_STRING:
            return self.framed(field.number, self.text(_TEXTS))
        if kind == FieldDescriptor.TYPE_BYTES:
            return self.framed(field.number, self.random.choice(_IDS))
        wire_type = 1 if kind in _FIXED64 else 5 if kind == FieldDescriptor.TYPE_FIXED32 else 0
        return self.varint(field.number << 3 | wire_type) + self.scalar(kind)

    def scalar(self, kind: int) -> bytes:
        if kind == FieldDescriptor.TYPE_DOUBLE:
            return bytes.fromhex(self.random.choice(_DOUBLES))
        if kind in _FIXED64:
            return self.random.choice(_INTEGERS).to_bytes(8, "little")
        if kind == FieldDescriptor.TYPE_FIXED32:
            return self.random.randbytes(4)
        return self.varint(self.random.choice(_INTEGERS), 10)

    def unknown(self, number: int, depth: int, wire_types: Sequence[int] = (0, 1, 2, 3, 5)) -> bytes:
        wire_type = self.random.choice(wire_types)
        tag = self.varint(number << 3 | wire_type)
        match wire_type:
            case 0:
                return tag + self.varint(self.random.choice(_INTEGERS), 10)
            case 1:
                return tag + self.random.randbytes(8)
            case 2:
                return tag + self.varint(3) + b"\xff\x00a"
            case 3:
                inner = self.unknown(self.random.choice([1, 5, 99]), depth + 1) if depth < _MAX_DEPTH else b""
                other = number if self.random.random() >= self.malformed else number + 1
                return tag + inner + self.varint(other << 3 | 4)
        return tag + self.random.randbytes(4)

    def text(self, choices: list[str]) -> bytes:
        if self.random.random() < self.malformed:
            return self.random.choice(
                [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"abcdefgh\xe2\x82"]
            )
        return self.random.choice(choices).encode()

    def framed(self, number: int, body: bytes) -> bytes:
        wrong = self.random.choice([-1, 1, 1 << 31]) if self.random.random() < self.malformed else 0
        return self.varint(number << 3 | 2) + self.varint(max(0, len(body) + wrong)) + body

    def varint(self, value: int, most: int = 5) -> bytes:
        """Sometimes longer than it need be."""
        out = bytearray()
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
        if self.random.random() < 0.02:
            size = self.random.randint(len(out), most)
            out[-1] |= 0x80 if size > len(out) else 0
            out += b"\x80" * (size - len(out) - 1) + b"\x00" * (size > len(out))
        return bytes(out)
