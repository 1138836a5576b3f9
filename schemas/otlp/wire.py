"""Where the fields of a protobuf message lie. Only for bytes that opentelemetry-proto has parsed: nothing is
checked here.
"""

from collections.abc import Iterator
from typing import NamedTuple

FRAME_BYTES = 24
"""Room for the tags and lengths of the three messages around an item (at most 6 bytes each), and some."""

_VARINT, _FIXED64, _LENGTH, _GROUP, _END_GROUP, _FIXED32 = range(6)


class Field(NamedTuple):
    """One field as it lies in the bytes: tag at ``begin``, value in [value, end)."""

    number: int
    is_length_delimited: bool
    begin: int
    value: int
    end: int


def fields(data: bytes, begin: int, end: int) -> Iterator[Field]:
    """The fields of the message body data[begin:end], in the order of its bytes."""
    at = begin
    while at < end:
        start = at
        tag, at = _varint(data, at)
        value, at = _skip(data, tag, at)
        yield Field(tag >> 3, tag & 7 == _LENGTH, start, value, at)


def submessages(data: bytes, begin: int, end: int, number: int) -> Iterator[Field]:
    """Those of :func:`fields` that are messages, strings or bytes with this field number."""
    return (
        field for field in fields(data, begin, end) if field.number == number and field.is_length_delimited
    )


def joined(data: bytes, begin: int, end: int, number: int) -> bytes:
    """The bytes of a singular submessage: its occurrences end to end, which protobuf defines as their merge;
    b"" when absent.
    """
    return b"".join(data[field.value : field.end] for field in submessages(data, begin, end, number))


def without(data: bytes, container: Field, number: int) -> bytes:
    """A container's fields other than its repeated items, unknown ones too, as they are."""
    return b"".join(
        data[field.begin : field.end]
        for field in fields(data, container.value, container.end)
        if not (field.number == number and field.is_length_delimited)
    )


def framed_bytes(size: int) -> int:
    """What :func:`framed` takes of a body of ``size`` bytes, for numbers below 16."""
    return 1 + len(_encoded(size)) + size


def framed(number: int, body: bytes) -> bytes:
    """A length-delimited field."""
    return _encoded(number << 3 | _LENGTH) + _encoded(len(body)) + body


def _skip(data: bytes, tag: int, at: int) -> tuple[int, int]:
    """Where the value begins and ends."""
    match tag & 7:
        case 0:
            return at, _varint(data, at)[1]
        case 1:
            return at, at + 8
        case 2:
            length, at = _varint(data, at)
            return at, at + length
        case 5:
            return at, at + 4
    begin = at
    while True:  # a group (deprecated): to its own end tag
        tag, at = _varint(data, at)
        if tag & 7 == _END_GROUP:
            return begin, at
        _, at = _skip(data, tag, at)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _encoded(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
