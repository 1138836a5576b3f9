"""What columns of data points and log records have in common: resource and scope columns, attribute maps,
identities.

Semantics as the OpenTelemetry Collector's ClickHouse exporter (exporter/clickhouseexporter); attribute texts:
``schemas.otlp.text``.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, repeat
from typing import Any

import numpy as np
import pyarrow as pa
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from schemas.errors import MalformedOtlp
from schemas.ids import is_valid
from schemas.otlp.semantics import MAX_TIME_NS
from schemas.otlp.text import attribute_texts
from schemas.spans import ATTRIBUTES
from schemas.tables import SCHEMAS

IDENTITY_BYTES = 16


@dataclass(frozen=True, slots=True)
class Items:
    """Data points or log records of one table, in the order of the payloads' bytes."""

    rows: pa.Table
    """``SCHEMAS[table]`` without LogTime."""
    identities: pa.FixedSizeBinaryArray
    """16 bytes each: a hash of all that the sender wrote of the item, its metric, scope and resource; equal
    for copies.
    """


class Contexts:
    """Resource and scope of items, each distinct pair once."""

    def __init__(self) -> None:
        self._rows: dict[bytes, int] = {}
        self._columns: list[tuple[Any, ...]] = []

    def add(
        self, resource: Resource, resource_url: str, scope: InstrumentationScope, scope_url: str
    ) -> "Context":
        """The context of one ResourceMetrics / ScopeMetrics (or Logs) pair."""
        parts = (
            resource.SerializeToString(),
            resource_url.encode(),
            scope.SerializeToString(),
            scope_url.encode(),
        )
        digest = blake2b(
            b"".join(len(part).to_bytes(8, "big") + part for part in parts), digest_size=IDENTITY_BYTES
        ).digest()
        row = self._rows.setdefault(digest, len(self._columns))
        if row == len(self._columns):
            attributes = attribute_texts(resource.attributes)
            self._columns.append(
                (
                    attributes, resource_url, scope.name, scope.version, attribute_texts(scope.attributes),
                    scope.dropped_attributes_count, scope_url, attributes.get("service.name", ""),
                )
            )  # fmt: skip
        return Context(row, digest)

    def columns(self, rows: Sequence[int]) -> dict[str, pa.Array]:
        """The columns of these contexts, one row for each number."""
        names = (
            "ResourceAttributes", "ResourceSchemaUrl", "ScopeName", "ScopeVersion", "ScopeAttributes",
            "ScopeDroppedAttrCount", "ScopeSchemaUrl", "ServiceName",
        )  # fmt: skip
        values = list(zip(*self._columns, strict=True)) or [()] * len(names)
        schema = SCHEMAS["otel_metrics_gauge"]
        indices = pa.array(rows, pa.uint32())
        return {
            name: column(value, schema.field(name).type).take(indices)
            for name, value in zip(names, values, strict=True)
        }


class Context:
    """One resource and scope as they stand around items; tells equal items within it apart by their count.

    Two equal log records in one message are two; the same message sent again has the same identities.
    """

    def __init__(self, row: int, digest: bytes) -> None:
        self.row = row
        self._digest = digest
        self._seen: Counter[bytes] = Counter()

    def identity(self, *parts: bytes) -> bytes:
        """The identity of the next item with these bytes."""
        framed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        digest = blake2b(self._digest + framed, digest_size=IDENTITY_BYTES).digest()
        self._seen[digest] += 1
        if self._seen[digest] == 1:
            return digest
        return blake2b(digest + self._seen[digest].to_bytes(8, "big"), digest_size=IDENTITY_BYTES).digest()


class Rows:
    """Grows one table, row by row."""

    def __init__(self, table: str, own_columns: Sequence[str]) -> None:
        self._schema = SCHEMAS[table].remove(SCHEMAS[table].get_field_index("LogTime"))
        self._own_columns = own_columns
        self._contexts: list[int] = []
        self._identities: list[bytes] = []
        self._values: list[tuple[Any, ...]] = []

    def add(self, context: Context, identity: bytes, values: tuple[Any, ...]) -> None:
        """One item; ``values`` in the order of ``own_columns``, attribute columns as mappings."""
        self._contexts.append(context.row)
        self._identities.append(identity)
        self._values.append(values)

    def items(self, contexts: Contexts) -> Items:
        """The table so far."""
        columns = contexts.columns(self._contexts)
        own = zip(*self._values, strict=True) if self._values else repeat((), len(self._own_columns))
        for name, values in zip(self._own_columns, own, strict=True):
            columns[name] = column(values, self._schema.field(name).type)
        rows = pa.table([columns[name] for name in self._schema.names], schema=self._schema)
        return Items(rows, pa.array(self._identities, pa.binary(IDENTITY_BYTES)))


def parse(kind: type[Message], payloads: Sequence[bytes]) -> list[Any]:
    """Payloads as messages of this kind. Raises MalformedOtlp with ``record``."""
    messages = []
    for record, payload in enumerate(payloads):
        try:
            messages.append(kind.FromString(payload))
        except DecodeError as error:
            raise MalformedOtlp(f"not a {kind.DESCRIPTOR.name} message", record) from error
    return messages


def column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Python values as an Arrow array; attribute columns from mappings (or, in lists, sequences of
    mappings).
    """
    if kind == ATTRIBUTES:
        return _maps(values)
    if pa.types.is_list(kind) and kind.value_type == ATTRIBUTES:
        return pa.ListArray.from_arrays(_offsets(values), _maps(list(chain.from_iterable(values))))
    return pa.array(values, kind)


def hex_id(id_: bytes, length: int) -> str:
    """An id as hex; "" for one of a wrong length or zero."""
    return id_.hex() if is_valid(id_, length) else ""


def clamp_time(time_ns: int) -> int:
    """A fixed64 time as int64."""
    return min(time_ns, MAX_TIME_NS)


def _maps(mappings: Sequence[Mapping[str, str]]) -> pa.MapArray:
    keys = pa.array(chain.from_iterable(mappings), pa.string())
    texts = pa.array(chain.from_iterable(mapping.values() for mapping in mappings), pa.string())
    return pa.MapArray.from_arrays(_offsets(mappings), keys, texts)


def _offsets(sized: Sequence[Any]) -> pa.Int32Array:
    offsets = np.zeros(len(sized) + 1, dtype=np.int32)
    np.cumsum([len(each) for each in sized], out=offsets[1:])
    return pa.array(offsets)
