"""Where values stand in a column of 64-bit numbers: what parents and nodes are found by.

A join of Polars takes five times as long, as it also makes the rows that come out.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from processors.grouping import U64

try:
    from schemas._native import Index as _NativeIndex
except ImportError:  # built without cargo
    _NativeIndex = None  # type: ignore[assignment,misc]

Places = npt.NDArray[np.int32]
NOWHERE = -1


class Index:
    """The first row of each value of a column."""

    def __init__(self, keys: U64) -> None:
        self._rows = PlainIndex(keys) if _NativeIndex is None else _NativeIndex(keys)

    def find(self, asked: U64) -> Places:
        """The row of each of the ``asked`` values; NOWHERE where none has it."""
        found: Any = self._rows.find(asked)  # an array, or memory of one
        places: Places = np.frombuffer(found, np.int32)
        return places


class PlainIndex:
    """As the native one, where it was not built."""

    def __init__(self, keys: U64) -> None:
        self._rows = pl.DataFrame({"key": keys}).with_row_index("row").unique("key", keep="first")

    def find(self, asked: U64) -> Places:
        """The row of each of the ``asked`` values; NOWHERE where none has it."""
        asking = pl.DataFrame({"key": asked}, schema={"key": pl.UInt64})
        found = asking.join(self._rows, on="key", how="left", maintain_order="left")["row"]
        places: Places = found.cast(pl.Int32).fill_null(NOWHERE).to_numpy()
        return places


def rows_of(keys: U64, asked: U64) -> Places:
    """As Index.find, of a column that is asked once."""
    return Index(keys).find(asked)
