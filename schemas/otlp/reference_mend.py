"""Mending of requests by opentelemetry-proto's descriptors: the twin of ``native/src/otlp/mend.rs``, which
says what is done. Whether a message is well-formed is asked of protobuf's own parser.
"""

from dataclasses import dataclass, replace
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas import topics
from schemas.errors import MalformedOtlp
from schemas.otlp.wire import framed

_MAX_DEPTH = 100
_NESTED = 4
_MAX_GROWTH = 1 << 20
_MARK = b"meshflow.cut"

_Path = tuple[frozenset[int], ...]
_ITEMS: _Path = (frozenset({1}), frozenset({2}), frozenset({2}))
_POINTS: _Path = (*_ITEMS, frozenset({5, 7, 9, 10, 11}), frozenset({1}))
_ROOTS: dict[str, tuple[type[Message], _Path]] = {
    topics.SPANS: (TracesData, _ITEMS),
    topics.METRICS: (MetricsData, _POINTS),
    topics.LOGS: (LogsData, _ITEMS),
}
_VARINTS = {
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT32,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_BOOL,
    FieldDescriptor.TYPE_ENUM,
}
_FIXED64 = {FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64, FieldDescriptor.TYPE_DOUBLE}


class _BrokenError(Exception):
    """A message is not well-formed, and can't be mended."""


@dataclass(slots=True)
class _Counts:
    repaired: int = 0
    dropped: int = 0
    grown: int = 0


class _Bytes:
    """The rest of a message's body, of which nothing is known."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def __bool__(self) -> bool:
        return self.at < len(self.data)

    def varint(self, most: int) -> int:
        value = 0
        for index in range(most):
            if not self:
                break
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                if most == 5 and value >= 1 << 32:
                    break
                return value
        raise _BrokenError

    def tag(self) -> int:
        return self.varint(5)

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise _BrokenError
        self.at += size
        return self.data[self.at - size : self.at]

    def length_delimited(self) -> bytes:
        return self.take(self.varint(5))

    def skip(self, tag: int, depth: int) -> None:
        """Leave out a field's value; ``depth``: how many groups may nest."""
        match tag & 7:
            case 0:
                self.varint(10)
            case 1:
                self.take(8)
            case 2:
                self.length_delimited()
            case 5:
                self.take(4)
            case 3 if depth > 0:
                while (inner := self.tag()) & 7 != 4:
                    self.skip(inner, depth - 1)
                if inner >> 3 != tag >> 3:
                    raise _BrokenError
            case _:
                raise _BrokenError


def mend(topic: str, request: bytes) -> tuple[bytes, int, int]:
    """See ``schemas.otlp.mend``: the bytes, texts repaired and values cut, items left out."""
    root, path = _ROOTS[topic]
    mender = _Mender(root)
    try:
        body = mender.holder(cast("Descriptor", root.DESCRIPTOR), request, (), path)
    except _BrokenError:
        raise MalformedOtlp("not a well-formed OTLP message") from None
    return body, mender.counts.repaired, mender.counts.dropped


class _Mender:
    def __init__(self, root: type[Message]) -> None:
        self.counts = _Counts()
        self._root = root

    def holder(self, descriptor: Descriptor, body: bytes, outer: tuple[int, ...], path: _Path) -> bytes:
        """A message that holds others on the way to items, within the fields ``outer``."""
        depth = _MAX_DEPTH - len(outer)
        if not path:
            return self._message(descriptor, body, depth)
        out, rest = bytearray(), _Bytes(body)
        while rest:
            begin, tag = rest.at, rest.tag()
            if tag & 7 == 2 and tag >> 3 in path[0]:
                value = rest.length_delimited()
                inner = descriptor.fields_by_number[tag >> 3].message_type
                assert inner is not None
                out += self._part(inner, body[begin : rest.at], value, (*outer, tag >> 3), path[1:])
            else:
                out += self._field(descriptor, tag, begin, rest, depth)
        return bytes(out)

    def _part(
        self, inner: Descriptor, whole: bytes, value: bytes, outer: tuple[int, ...], path: _Path
    ) -> bytes:
        if self._is_well_formed(value, outer):
            return whole
        before = replace(self.counts)
        try:
            return framed(outer[-1], self.holder(inner, value, outer, path))
        except _BrokenError:
            self.counts = before
            self.counts.dropped += max(1, _count(value, path))
            return b""

    def _is_well_formed(self, body: bytes, outer: tuple[int, ...]) -> bool:
        for number in reversed(outer):
            body = framed(number, body)
        try:
            self._root.FromString(body)
        except DecodeError:
            return False
        return True

    def _message(self, descriptor: Descriptor, body: bytes, depth: int) -> bytes:
        out, rest = bytearray(), _Bytes(body)
        while rest:
            begin, tag = rest.at, rest.tag()
            out += self._field(descriptor, tag, begin, rest, depth)
        return bytes(out)

    def _field(self, descriptor: Descriptor, tag: int, begin: int, rest: _Bytes, depth: int) -> bytes:
        """The field that begins there and whose tag has been read."""
        number, after_tag = tag >> 3, rest.at
        if not number:
            raise _BrokenError
        rest.skip(tag, depth)
        whole = rest.data[begin : rest.at]
        field = descriptor.fields_by_number.get(number) if tag & 7 == 2 else None
        if field is None:
            return whole
        value = _Bytes(rest.data[after_tag : rest.at]).length_delimited()
        if field.message_type:
            if descriptor.full_name == AnyValue.DESCRIPTOR.full_name and depth < _NESTED:
                self.counts.repaired += 1
                self._grow(max(0, len(_MARK) - len(value)))
                return framed(1, _MARK)
            if depth == 0:
                raise _BrokenError
            return framed(number, self._message(field.message_type, value, depth - 1))
        if field.type == FieldDescriptor.TYPE_STRING:
            return self._text(number, value, whole)
        if field.is_repeated:
            _check_packed(field.type, value)
        return whole

    def _text(self, number: int, value: bytes, whole: bytes) -> bytes:
        try:
            value.decode()
        except UnicodeDecodeError:
            self.counts.repaired += 1
            repaired = value.decode(errors="replace").encode()
            self._grow(len(repaired) - len(value))
            return framed(number, repaired)
        return whole

    def _grow(self, size: int) -> None:
        self.counts.grown += size
        if self.counts.grown > _MAX_GROWTH:
            raise _BrokenError


def _check_packed(kind: int, value: bytes) -> None:
    if kind in _FIXED64 and len(value) % 8:
        raise _BrokenError
    if kind in _VARINTS:
        numbers = _Bytes(value)
        while numbers:
            numbers.varint(10)


def _count(body: bytes, path: _Path) -> int:
    """How many items a holder has, up to the first fault."""
    if not path:
        return 1
    items, rest = 0, _Bytes(body)
    try:
        while rest:
            tag = rest.tag()
            if tag & 7 == 2 and tag >> 3 in path[0]:
                items += _count(rest.length_delimited(), path[1:])
            elif tag >> 3:
                rest.skip(tag, _MAX_DEPTH)
            else:
                break
    except _BrokenError:
        pass
    return items
