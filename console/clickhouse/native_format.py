"""ClickHouse's Native format for clients that name their protocol version (``client_protocol_version``). No
I/O here.

The engine in process writes Native for no client at all. For one, each block begins with its info (from
revision 51903 on), and each column says whether its serialization is a custom one (from 54454 on), after
src/Formats/NativeWriter.cpp. To put that in, the columns of a block have to be measured, which needs their
types' layouts but none of their values.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from console.clickhouse import interface as clickhouse

WITH_BLOCK_INFO = 51_903
WITH_CUSTOM_SERIALIZATION = 54_454

_BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"  # field 1: no overflow row; field 2: bucket -1; end
_OWN_SERIALIZATION = b"\x00"

_WIDTHS = {
    **dict.fromkeys(("UInt8", "Int8", "Bool", "Enum8", "Nothing"), 1),
    **dict.fromkeys(("UInt16", "Int16", "Date", "Enum16", "BFloat16"), 2),
    **dict.fromkeys(("UInt32", "Int32", "Float32", "DateTime", "Date32", "IPv4", "Time"), 4),
    **dict.fromkeys(("UInt64", "Int64", "Float64", "DateTime64", "Time64"), 8),
    **dict.fromkeys(("UInt128", "Int128", "UUID", "IPv6"), 16),
    **dict.fromkeys(("UInt256", "Int256"), 32),
}
_TUPLES = {"Point": "Float64, Float64"}
_ARRAYS = {
    "Ring": "Point",
    "LineString": "Point",
    "Polygon": "Ring",
    "MultiLineString": "LineString",
    "MultiPolygon": "Polygon",
}
_NAMED = re.compile(r"(?:\w+|`(?:[^`\\]|\\.)*`) +(?=[A-Z])")
_INDEX_WIDTH = (1, 2, 4, 8)
_HAS_KEYS = 1 << 9
_U64 = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Type:
    """A type's name and what stands in its brackets."""

    name: str
    inner: tuple["Type", ...] = ()
    number: int = 0
    """Of FixedString: bytes. Of Decimal: digits."""


def frame(body: bytes, revision: int) -> bytes:
    """The blocks of ``body`` as a client of this revision reads them.

    Raises QueryFailed (NOT_IMPLEMENTED) for a type whose layout is not known here.
    """
    if revision < WITH_BLOCK_INFO:
        return body
    try:
        return b"".join(_blocks(body, revision))
    except RecursionError:
        reason = "a type nested this deep cannot be sent in Native to this client; use another FORMAT"
        raise clickhouse.failed(clickhouse.UNSUPPORTED, "NOT_IMPLEMENTED", reason) from None


def parse_type(text: str) -> Type:
    """A type as ClickHouse spells it. Raises QueryFailed for one whose layout is not known here."""
    name, _, rest = text.strip().partition("(")
    inner = rest.rpartition(")")[0]
    if name in _ARRAYS:
        return Type("Array", (parse_type(_ARRAYS[name]),))
    if name in _TUPLES:
        name, inner = "Tuple", _TUPLES[name]
    if name in _WIDTHS or name.startswith("Interval"):
        return Type(name)
    if name == "String":
        return Type(name)
    if name in {"FixedString", "Decimal"}:
        return Type(name, number=int(inner.split(",")[0]))
    if name == "SimpleAggregateFunction":
        return parse_type(_split(inner)[1])
    if name in {"Nullable", "Array", "LowCardinality"}:
        return Type(name, (parse_type(inner),))
    if name in {"Tuple", "Map", "Nested"}:
        parts = tuple(
            parse_type(_NAMED.sub("", part, count=1) if _NAMED.match(part) else part)
            for part in _split(inner)
        )
        return Type(name, parts) if name == "Tuple" else Type("Array", (Type("Tuple", parts),))
    raise clickhouse.failed(
        clickhouse.UNSUPPORTED,
        "NOT_IMPLEMENTED",
        f"type {name} cannot be sent in Native to this client; use toString() or another FORMAT",
    )


def _split(text: str) -> list[str]:
    """Parts between commas outside of brackets and quotes."""
    parts, depth, start, quote = [], 0, 0, ""
    position = 0
    while position < len(text):
        sign = text[position]
        if quote:
            position += sign == "\\"
            quote = "" if sign == quote else quote
        elif sign in "'`\"":
            quote = sign
        elif sign in "()":
            depth += 1 if sign == "(" else -1
        elif sign == "," and depth == 0:
            parts.append(text[start:position].strip())
            start = position + 1
        position += 1
    return [*parts, text[start:].strip()]


def _blocks(body: bytes, revision: int) -> Iterator[bytes]:
    position = 0
    custom = _OWN_SERIALIZATION if revision >= WITH_CUSTOM_SERIALIZATION else b""
    types: dict[bytes, Type] = {}
    while position < len(body):
        start = position
        columns, position = _varint(body, position)
        rows, position = _varint(body, position)
        yield _BLOCK_INFO + body[start:position]
        for _ in range(columns):
            start = position
            position = _skip_text(body, position)
            length, begin = _varint(body, position)
            position = begin + length
            text = body[begin:position]
            if text not in types:
                types[text] = parse_type(text.decode(errors="surrogateescape"))
            yield body[start:position] + custom
            if rows:
                start = position
                position = _skip(types[text], body, _skip_prefix(types[text], position), rows)
                yield body[start:position]


def _skip_prefix(kind: Type, position: int) -> int:
    """Every LowCardinality within a column is announced at its beginning."""
    if kind.name == "LowCardinality":
        return position + 8
    for inner in kind.inner:
        position = _skip_prefix(inner, position)
    return position


def _skip(kind: Type, body: bytes, position: int, rows: int) -> int:
    """Where the values of ``rows`` rows end."""
    if kind.name == "String":
        return _skip_texts(body, position, rows)
    if kind.name == "Nullable":
        return _skip(kind.inner[0], body, position + rows, rows)
    if kind.name == "Tuple":
        for inner in kind.inner:
            position = _skip(inner, body, position, rows)
        return position
    if kind.name == "Array":
        if rows == 0:
            return position
        items = _U64.unpack_from(body, position + 8 * (rows - 1))[0]
        return _skip(kind.inner[0], body, position + 8 * rows, items)
    if kind.name == "LowCardinality":
        return _skip_low_cardinality(kind, body, position, rows)
    return position + _width(kind) * rows


def _skip_low_cardinality(kind: Type, body: bytes, position: int, rows: int) -> int:
    if rows == 0:
        return position
    flags = _U64.unpack_from(body, position)[0]
    position += 8
    if flags & _HAS_KEYS:
        keys = _U64.unpack_from(body, position)[0]
        inner = kind.inner[0]
        position = _skip(inner.inner[0] if inner.name == "Nullable" else inner, body, position + 8, keys)
    return position + 8 + rows * _INDEX_WIDTH[flags & 0xFF]


def _skip_texts(body: bytes, position: int, rows: int) -> int:
    for _ in range(rows):
        length = body[position]
        if length < 128:
            position += 1 + length
        else:
            position = _skip_text(body, position)
    return position


def _skip_text(body: bytes, position: int) -> int:
    length, position = _varint(body, position)
    return position + length


def _varint(body: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7


def _width(kind: Type) -> int:
    if kind.name == "FixedString":
        return kind.number
    if kind.name == "Decimal":
        return next(width for digits, width in ((9, 4), (18, 8), (38, 16), (76, 32)) if kind.number <= digits)
    return 8 if kind.name.startswith("Interval") else _WIDTHS[kind.name]
