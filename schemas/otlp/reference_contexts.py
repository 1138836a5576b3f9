"""What data points and log records refer to, each once in a batch: resources, scopes, attribute sets,
strings; and the identities of items and series. The slow twin of ``native/src/otlp/contexts.rs``.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import pyarrow as pa
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from schemas.contexts import ATTRIBUTE_SET_SCHEMA, ITEM_RESOURCE_SCHEMA, ITEM_SCOPE_SCHEMA, Contexts
from schemas.errors import MalformedOtlp
from schemas.ids import is_valid
from schemas.otlp.identity import NO_TAGS, identity
from schemas.otlp.limits import Cutter, Left, Limits
from schemas.otlp.semantics import MAX_TIME_NS, PROXY_KEYS, RESOURCE_KEYS
from schemas.otlp.text import attribute_texts
from schemas.otlp.wire import Field, joined, submessages


def parse(kind: type[Any], data: bytes, record: int | None) -> Any:
    """A message of this kind. Raises MalformedOtlp."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise MalformedOtlp(f"not a {kind.DESCRIPTOR.name} message", record) from error


def first_text(attributes: Mapping[str, str], keys: tuple[str, ...]) -> str:
    """The text of the first key that has one other than ""."""
    return next((text for key in keys if (text := attributes.get(key))), "")


def resource_texts(attributes: Mapping[str, str]) -> dict[str, str]:
    """The text of each field of RESOURCE_KEYS and PROXY_KEYS; "" for none."""
    return {field: first_text(attributes, keys) for field, keys in {**RESOURCE_KEYS, **PROXY_KEYS}.items()}


class Strings:
    """Text -> code, in the order of first use."""

    def __init__(self) -> None:
        self.codes = {"": 0}

    def code(self, text: str) -> int:
        """The code of a text."""
        return self.codes.setdefault(text, len(self.codes))


class Known(NamedTuple):
    """A resource, scope or attribute set of the batch."""

    row: int
    own: bytes
    """Digest of its bytes."""
    meaning: bytes
    """Digest of what it says."""


class Place(NamedTuple):
    """Where items stand."""

    resource: Known
    scope: Known
    identities: Iterator[tuple[int, int]]
    """Of the items of the part that are still to come."""

    def series(self, *parts: bytes) -> int:
        """The number (u64) of a series of this resource and scope; ``parts``: what else names it."""
        source = digest_of(self.resource.meaning + self.scope.meaning)
        return int.from_bytes(digest_of(source, *parts)[:8], "big")


class Tables:
    """Collects what items refer to."""

    def __init__(self, limits: Limits) -> None:
        self._strings = Strings()
        self.cutter = Cutter(limits)
        self._resources: dict[tuple[bytes, str, str], Known] = {}
        self._scopes: dict[tuple[bytes, str], Known] = {}
        self._sets: dict[tuple[bytes, ...], Known] = {}
        self._rows: tuple[list[tuple[Any, ...]], ...] = ([], [], [])

    def items(
        self, payload: bytes, containers: Sequence[Any], cluster: str
    ) -> Iterator[tuple[Place, Field, Any]]:
        """Each item with its place and where its bytes lie."""
        parts: Counter[bytes] = Counter()
        resource_fields = submessages(payload, 0, len(payload), 1)
        for resource_field, (of_resource, scopes, children) in zip(resource_fields, containers, strict=True):
            _, _, _, begin, end = resource_field
            resource = self._resource(joined(payload, begin, end, 1), of_resource.schema_url, cluster)
            own = digest_of(resource.own, payload[begin:end])
            parts[own] += 1
            identities = _identities(own, parts[own])
            scope_fields = submessages(payload, begin, end, 2)
            for scope_field, of_scope, items in zip(scope_fields, scopes, children, strict=True):
                _, _, _, begin_scope, end_scope = scope_field
                scope = self._scope(joined(payload, begin_scope, end_scope, 1), of_scope.schema_url)
                place = Place(resource, scope, identities)
                item_fields = submessages(payload, begin_scope, end_scope, 2)
                for item_field, item in zip(item_fields, items, strict=True):
                    yield place, item_field, item

    def code(self, text: str) -> int:
        """The code of a text, whole."""
        return self._strings.code(text)

    def text(self, code: int) -> str:
        """The text of a code."""
        return list(self._strings.codes)[code]

    def code_within(self, text: str) -> int:
        """The code of a text, cut to the limit."""
        return self._strings.code(self.cutter.text(text))

    def limited(self, attributes: Mapping[str, str], left: Left | None = None) -> list[tuple[str, str]]:
        """Attributes within the limits; ``left`` counts what is left out."""
        return list(self.cutter.attributes(attributes, left).items())

    def attributes(self, bodies: tuple[bytes, ...], texts: dict[str, str], left: Left) -> Known:
        """The set whose messages are ``bodies``; a row of its own where something of the item is left out."""
        known = self._sets.get(bodies)
        if known and not left:
            return known
        marked = bool(left)  # a row of its own
        known = Known(len(self._rows[2]), digest_of(framed(*bodies)), _meaning(texts, ""))
        self._rows[2].append((self.limited(texts, left),))
        if not marked:
            self._sets[bodies] = known
        return known

    def finish(self) -> Contexts:
        """All that was collected."""
        schemas = (ITEM_RESOURCE_SCHEMA, ITEM_SCOPE_SCHEMA, ATTRIBUTE_SET_SCHEMA)
        resources, scopes, sets = map(to_batch, self._rows, schemas)
        return Contexts(resources, scopes, sets, pa.array(self._strings.codes, pa.string()), self.cutter.cut)

    def _resource(self, data: bytes, url: str, cluster: str) -> Known:
        self.code(cluster)
        known = self._resources.get((data, url, cluster))
        if known:
            return known
        attributes = attribute_texts(Resource.FromString(data).attributes)
        named = resource_texts(attributes)
        used = "" if named["cluster"] else cluster
        own = identity(named, NO_TAGS, cluster)
        texts = own._asdict() | {
            "service_name": attributes.get("service.name", "") or (own.service if named["node"] else ""),
            "schema_url": url,
        }
        codes = [
            self.code_within(texts[name])
            for name in ITEM_RESOURCE_SCHEMA.names
            if name not in ("identity", "attributes")
        ]
        meaning = _meaning(attributes, used)
        digest = int.from_bytes(meaning[:8], "big")
        self._rows[0].append((*codes, digest, self.limited(attributes)))
        known = Known(len(self._resources), digest_of(framed(data, url.encode(), used.encode())), meaning)
        self._resources[data, url, cluster] = known
        return known

    def _scope(self, data: bytes, url: str) -> Known:
        if (data, url) not in self._scopes:
            scope = InstrumentationScope.FromString(data)
            texts = [self.cutter.text(text) for text in (scope.name, scope.version, url)]
            attributes = self.limited(attribute_texts(scope.attributes))
            self._rows[1].append((*texts, scope.dropped_attributes_count, attributes))
            meaning = digest_of(framed(scope.name.encode(), scope.version.encode()))
            own = digest_of(framed(data, url.encode()))
            self._scopes[data, url] = Known(len(self._scopes), own, meaning)
        return self._scopes[data, url]


def _identities(own: bytes, count: int) -> Iterator[tuple[int, int]]:
    """Of the items of a part, in their order; ``count``: how many equal parts the payload has had."""
    first = int.from_bytes(own if count == 1 else digest_of(own, count.to_bytes(8, "big")), "big")
    for number in itertools.count():
        identity = (first + number) % (1 << 128)
        yield identity >> 64, identity % (1 << 64)


def trace_id_halves(data: bytes) -> tuple[int, int]:
    """High and low u64 of a trace id; zeros where it is not valid."""
    if not is_valid(data, 16):
        return 0, 0
    return int.from_bytes(data[:8], "big"), int.from_bytes(data[8:], "big")


def span_id_number(data: bytes) -> int:
    """A span id as u64; 0 where it is not of 8 bytes."""
    return int.from_bytes(data, "big") if len(data) == 8 else 0


def clamped(time_ns: int) -> int:
    """A fixed64 time as int64."""
    return min(time_ns, MAX_TIME_NS)


def _meaning(attributes: Mapping[str, str], more: str) -> bytes:
    """The digest of attributes, whatever their order, and of one more text."""
    pairs = sorted((key.encode(), text.encode()) for key, text in attributes.items())
    return digest_of(framed(more.encode(), *(part for pair in pairs for part in pair)))


def framed(*parts: bytes) -> bytes:
    """Parts one after the other, each behind its length (u64)."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def digest_of(*parts: bytes) -> bytes:
    """The first 16 bytes of the SHA-256 of all parts."""
    return sha256(b"".join(parts)).digest()[:16]


def to_batch(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    """Rows as columns of a schema."""
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    return pa.RecordBatch.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
