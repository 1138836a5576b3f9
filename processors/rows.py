"""Rows of ``otel_*`` tables from a batch's dictionaries: what many rows share stays one value until a block
is cut.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from schemas.contexts import Contexts
from schemas.tables import SCHEMAS

Rows = npt.NDArray[np.uint32]


def shared(values: pa.Array, rows: pa.Array) -> pa.DictionaryArray:
    """``values[row]`` for each of ``rows``, without a copy of any value."""
    return pa.DictionaryArray.from_arrays(rows, values)


def constant(value: int, count: int) -> pa.Array:
    """A uint32 column of one value."""
    return pa.array(np.full(count, value, dtype=np.uint32))


def text_ranks(strings: pa.StringArray, codes: pl.Series) -> pl.Series:
    """The place of each code's text among the texts (by their UTF-8 bytes): sorts as the texts would."""
    distinct = codes.unique()
    ranks = pl.Series(strings.take(distinct.to_arrow())).rank("dense")
    return codes.replace_strict(distinct, ranks, return_dtype=pl.UInt32)


def context_columns(contexts: Contexts, items: pa.RecordBatch) -> dict[str, pa.Array]:
    """The columns that points and log records have in common, for rows of POINT_SCHEMA or LOG_SCHEMA."""
    resources, scopes, strings = contexts.resources, contexts.scopes, contexts.strings
    resource, scope = items.column("resource"), items.column("scope")
    return {
        "ResourceAttributes": shared(resources.column("attributes"), resource),
        "ResourceSchemaUrl": shared(strings, resources.column("schema_url").take(resource)),
        "ServiceName": shared(strings, resources.column("service_name").take(resource)),
        "ScopeName": shared(scopes.column("name"), scope),
        "ScopeVersion": shared(scopes.column("version"), scope),
        "ScopeAttributes": shared(scopes.column("attributes"), scope),
        "ScopeDroppedAttrCount": scopes.column("dropped_attributes").take(scope),
        "ScopeSchemaUrl": shared(scopes.column("schema_url"), scope),
    }


def service_names(contexts: Contexts, items: pa.RecordBatch) -> pl.Series:
    """The code of each item's ServiceName."""
    return pl.Series(contexts.resources.column("service_name").take(items.column("resource")))


def table_of(name: str, columns: Mapping[str, pa.Array]) -> pa.Table:
    """The columns of ``SCHEMAS[name]``, in its order."""
    names = SCHEMAS[name].names
    return pa.table([columns[column] for column in names], names=names)


def no_dimensions(rows: int) -> pa.MapArray:
    """Empty maps, one a row, as ``dimensions`` of RED and edges has them."""
    return pa.MapArray.from_arrays(
        pa.array(np.zeros(rows + 1, np.int32)), pa.array([], pa.string()), pa.array([], pa.string())
    )
