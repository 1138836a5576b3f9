"""Rows of a pane -> blocks of bounded size, made one at a time: a dictionary's values are repeated only for
the rows of one block.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

BLOCK_BYTES = 64 << 20
"""About how much one block has in memory. Not a setting: blocks cut elsewhere would have the tokens of others
that were stored before a restart (invariant 3).
"""

_Sizes = npt.NDArray[np.int64]
_Known = dict[tuple[tuple[int, ...], int, int], _Sizes]
"""Arrays by where they lie -> their rows' bytes."""


def cut(rows: pa.Table, schema: pa.Schema, limit_bytes: int = BLOCK_BYTES) -> Iterator[pa.Table]:
    """The rows as plain tables of ``schema``, in order, each of ``limit_bytes`` and one row more at most.

    Columns may be dictionary encoded. Raises ArrowInvalid where a column has another type or a null.
    """
    columns = [_whole(rows.column(name)) for name in schema.names]
    ends = _ends(columns, rows.num_rows, limit_bytes)
    for begin, end in zip([0, *ends], ends, strict=False):
        plain = [_plain(column.slice(begin, end - begin)) for column in columns]
        yield pa.Table.from_arrays(plain, schema=schema)


def _ends(columns: list[pa.Array], rows: int, limit_bytes: int) -> list[int]:
    """Where blocks end; the last one's is ``rows``."""
    known: _Known = {}
    plain = sum(int(column.nbytes) for column in columns if not pa.types.is_dictionary(column.type))
    shared = [_shared_bytes(column, known) for column in columns if pa.types.is_dictionary(column.type)]
    if plain + sum(int(each.sum()) for each in shared) <= limit_bytes:
        return [rows]
    sizes = np.zeros(rows, np.int64)
    for each in shared:
        sizes += each
    for column in columns:
        if not pa.types.is_dictionary(column.type):
            sizes += row_bytes(column)
    block = (np.cumsum(sizes) - sizes) // limit_bytes
    return [*(np.flatnonzero(np.diff(block)) + 1).tolist(), rows]


def _shared_bytes(column: pa.DictionaryArray, known: _Known) -> _Sizes:
    """About how many bytes each row takes as a plain one. Values that columns share are measured once."""
    values = column.dictionary
    buffers = tuple(buffer.address if buffer else 0 for buffer in values.buffers())
    identity = (buffers, values.offset, len(values))
    if identity not in known:
        known[identity] = row_bytes(values)
    sizes: _Sizes = known[identity][column.indices.to_numpy()]
    return sizes


def row_bytes(column: pa.Array) -> _Sizes:
    """About how many bytes each row of a plain column takes."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        lengths: _Sizes = pc.binary_length(column).to_numpy(zero_copy_only=False).astype(np.int64)
        return lengths + 4
    if pa.types.is_map(kind):
        return _nested(column, row_bytes(column.keys) + row_bytes(column.items))
    if pa.types.is_list(kind):
        return _nested(column, row_bytes(column.values))
    return np.full(len(column), max(kind.bit_width // 8, 1), np.int64)


def _nested(column: pa.Array, values: _Sizes) -> _Sizes:
    before = np.concatenate([[0], np.cumsum(values)])
    offsets = column.offsets.to_numpy()
    sizes: _Sizes = before[offsets[1:]] - before[offsets[:-1]] + 4
    return sizes


def _whole(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)  # combining copies even one
    combined = column.combine_chunks()
    return combined.combine_chunks() if isinstance(combined, pa.ChunkedArray) else combined


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary.take(column.indices) if pa.types.is_dictionary(column.type) else column
