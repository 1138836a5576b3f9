"""Requests of the captures, mutated: each a function of a seed."""

import gzip
import struct
from pathlib import Path
from random import Random
from typing import NamedTuple

import orjson
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas import topics
from schemas.otlp.wire import framed

CAPTURES = Path(__file__).parents[1] / "data" / "envoy"
NAMES = {topics.SPANS: "traces", topics.METRICS: "metrics", topics.LOGS: "logs"}
_KINDS: dict[str, type[Message]] = {
    topics.SPANS: TracesData,
    topics.METRICS: MetricsData,
    topics.LOGS: LogsData,
}

GRPC, PROTOBUF, JSON = "grpc", "protobuf", "json"


class Mutated(NamedTuple):
    """What is sent to the port of ``protocol``; ``plain`` before it was packed."""

    topic: str
    protocol: str
    is_packed: bool
    body: bytes
    plain: bytes


def read_captures() -> dict[str, list[bytes]]:
    """Captured Export requests by topic."""
    return {topic: _read(CAPTURES / f"{name}.bin.gz") for topic, name in NAMES.items()}


def _read(path: Path) -> list[bytes]:
    data, requests, at = gzip.decompress(path.read_bytes()), [], 0
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        requests.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return requests


def mutate(captures: dict[str, list[bytes]], seed: int) -> Mutated:
    """A request of some topic, changed in up to four places, over some protocol."""
    random = Random(seed)
    topic = random.choice(topics.TOPICS)
    plain = random.choice(captures[topic])
    protocol = random.choice([GRPC, PROTOBUF, JSON])
    if protocol == JSON:
        plain = _as_json(topic, plain)
    for _ in range(random.randrange(5)):
        changes = _CHANGES if protocol != JSON else _JSON_CHANGES
        plain = random.choice(changes)(random, plain)
    is_packed = random.random() < 0.3
    body = gzip.compress(plain, 1) if is_packed else plain
    if is_packed and protocol != GRPC and random.random() < 0.2:  # grpcio's client packs by itself
        body = random.choice([_flip, _truncate, _repeat])(random, body)
    return Mutated(topic, protocol, is_packed, body, plain)


def _as_json(topic: str, request: bytes) -> bytes:
    message = _KINDS[topic].FromString(request)
    return orjson.dumps(MessageToDict(message, use_integers_for_enums=True))


def _place(random: Random, data: bytes) -> int:
    return random.randrange(len(data) + 1)


def _flip(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.randrange(1, 4)):
        if changed:
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _truncate(random: Random, data: bytes) -> bytes:
    return data[: _place(random, data)]


def _repeat(random: Random, data: bytes) -> bytes:
    begin = _place(random, data)
    return data[:begin] + data[begin : begin + random.randrange(200)] * random.randrange(2, 20) + data[begin:]


def _twice(random: Random, data: bytes) -> bytes:
    """Messages end to end are one: each resource is there several times."""
    return data * random.randrange(2, 6)


def _noise(random: Random, data: bytes) -> bytes:
    at = _place(random, data)
    return data[:at] + random.randbytes(random.randrange(1, 40)) + data[at:]


def _overwrite(random: Random, data: bytes) -> bytes:
    """A string, or whatever is there, becomes noise of the same length."""
    at = _place(random, data)
    size = min(random.randrange(1, 30), len(data) - at)
    return data[:at] + random.randbytes(size) + data[at + size :]


def _length(random: Random, data: bytes) -> bytes:
    """A byte that may be a length says something else."""
    if not data:
        return data
    at = random.randrange(len(data))
    new = random.choice([b"\0", b"\x7f", b"\xff\x01", b"\xff\xff\xff\xff\x07", b"\xff\xff\xff\xff\xff\x01"])
    return data[:at] + new + data[at + 1 :]


def _huge_varint(random: Random, data: bytes) -> bytes:
    at = _place(random, data)
    return data[:at] + b"\xff" * 9 + b"\x01" + data[at:]


def _wide_number(random: Random, data: bytes) -> bytes:
    """Eight bytes become a number at a border: times and values are such."""
    at = _place(random, data)
    number = random.choice([0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, 0x7FF0000000000000, 0xFFF8000000000001])
    return data[:at] + number.to_bytes(8, "little") + data[at + 8 :]


def _groups(random: Random, data: bytes) -> bytes:
    depth = random.choice([1, 50, 99, 100, 101, 5000])
    return data + b"\x5b" * depth + b"\x5c" * depth


def _nested(random: Random, data: bytes) -> bytes:
    """A resource with an attribute whose value nests."""
    value = framed(1, b"x")
    for _ in range(random.choice([1, 20, 45, 60, 200])):
        value = framed(5, framed(1, value))
    attribute = framed(1, framed(1, b"deep") + framed(2, value))
    return data + framed(1, framed(1, attribute))


def _wrap(random: Random, data: bytes) -> bytes:
    return framed(random.choice([1, 2, 3, 15]), data)


def _spliced(random: Random, data: bytes) -> bytes:
    begin, end = sorted((_place(random, data), _place(random, data)))
    return data[:begin] + data[end:]


_CHANGES = [
    _flip,
    _flip,
    _truncate,
    _repeat,
    _twice,
    _noise,
    _overwrite,
    _overwrite,
    _length,
    _huge_varint,
    _wide_number,
    _wide_number,
    _groups,
    _nested,
    _wrap,
    _spliced,
]

_TOKENS = [
    b"null",
    b"-1",
    b"1e999",
    b"NaN",
    b"36893488147419103232",
    b'"18446744073709551615"',
    b'"9223372036854775807"',
    b"[]",
    b"{}",
    b'""',
    b'"\\ud800"',
    b"[" * 500 + b"]" * 500,
    b'"\\u0000"',
]


def _json_token(random: Random, data: bytes) -> bytes:
    """A value becomes another one."""
    colons = [at for at in range(len(data)) if data[at : at + 1] == b":"]
    if not colons:
        return data
    at = random.choice(colons) + 1
    end = min((data.find(mark, at) for mark in (b",", b"}") if data.find(mark, at) > 0), default=len(data))
    return data[:at] + random.choice(_TOKENS) + data[end:]


_JSON_CHANGES = [
    _json_token,
    _json_token,
    _json_token,
    _flip,
    _truncate,
    _noise,
    _overwrite,
    _spliced,
    _repeat,
]
