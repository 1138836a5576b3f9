"""Where values stand in a column of 64-bit numbers: what parents and nodes are found by.

A join of Polars takes five times as long, as it also makes the rows that come out.
"""

import numpy as np
import numpy.typing as npt
import polars as pl

from processors.grouping import U64

try:
    from schemas import _native
except ImportError:  # built without cargo
    _native = None  # type: ignore[assignment]

Places = npt.NDArray[np.int32]
NOWHERE = -1


def rows_of(keys: U64, asked: U64) -> Places:
    """The first row of ``keys`` that holds each of the ``asked`` values; NOWHERE where none does."""
    if _native is None:
        return rows_by_join(keys, asked)
    return np.frombuffer(memoryview(_native.rows_of(keys, asked)), dtype=np.int32)


def rows_by_join(keys: U64, asked: U64) -> Places:
    """As rows_of, where the native part was not built."""
    index = pl.DataFrame({"key": keys}).with_row_index("row").unique("key", keep="first")
    found = pl.DataFrame({"key": asked}).join(index, on="key", how="left", maintain_order="left")["row"]
    places: Places = found.cast(pl.Int32).fill_null(NOWHERE).to_numpy()
    return places
