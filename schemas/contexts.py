"""What data points and log records refer to, each once in a batch: resources, scopes, attribute sets, texts.

A ``code`` is a uint32 index into ``strings``, where 0 is the empty text.
"""

from dataclasses import dataclass

import pyarrow as pa

from schemas.spans import ATTRIBUTES, RESOURCE_SCHEMA


def batch_schema(**columns: pa.DataType) -> pa.Schema:
    """A schema of columns without nulls."""
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])


CODE = pa.uint32()
ROW = pa.uint32()

ITEM_RESOURCE_SCHEMA = batch_schema(
    **{name: CODE for name in RESOURCE_SCHEMA.names if name not in ("gateway", "base", "attributes")},
    service_name=CODE,  # the attribute service.name as it is; without it: of Envoy's resource its service, of others ""
    schema_url=CODE,
    identity=pa.uint64(),  # hash of attributes (whatever their order) and cluster
    attributes=ATTRIBUTES,
)
"""One row per distinct resource of the batch: distinct by its message's bytes, its schema URL, and the
cluster of its payload.
"""

ITEM_SCOPE_SCHEMA = batch_schema(
    name=pa.string(),
    version=pa.string(),
    schema_url=pa.string(),
    dropped_attributes=pa.uint32(),
    attributes=ATTRIBUTES,
)
"""One row per distinct scope of the batch: distinct by its message's bytes and its schema URL."""

ATTRIBUTE_SET_SCHEMA = batch_schema(attributes=ATTRIBUTES)
"""One row per distinct attribute set of items: distinct by its bytes."""


@dataclass(frozen=True, slots=True)
class Contexts:
    """The tables that rows of items refer to."""

    resources: pa.RecordBatch
    """ITEM_RESOURCE_SCHEMA."""
    scopes: pa.RecordBatch
    """ITEM_SCOPE_SCHEMA."""
    attributes: pa.RecordBatch
    """ATTRIBUTE_SET_SCHEMA."""
    strings: pa.StringArray
    """code -> text; ``strings[0]`` is ""."""
    cut: int
    """How many attribute sets, and texts of resources, scopes and metrics, are not whole."""
    redacted: int = 0
    """How many attributes and texts of the batch were redacted."""
