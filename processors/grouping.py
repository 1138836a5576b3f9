"""Rows -> groups: sort by one integer key, then reduce runs. Sparse histograms fall out as Arrow maps without
a Python object a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from schemas.tables import HISTOGRAM

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

NO_BUCKET = -2
"""A histogram's bucket of a row that has no duration to show."""

_BUCKETS = 1 << 10  # schemas.histogram: buckets -1 .. 1007


_SEED = 0x6D657368  # "mesh"; any fixed number


def hash_texts(texts: pl.Series) -> U64:
    """A hash of each text; 0 for ""."""
    hashes: U64 = texts.hash(_SEED).to_numpy(writable=True)
    hashes[(texts == "").to_numpy()] = 0
    return hashes


def hash_rows(columns: Sequence[U64]) -> U64:
    """A hash of each row of hashes or small numbers; the order of the columns counts."""
    mixed = np.zeros_like(columns[0])
    for column in columns:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(32)
        mixed *= np.uint64(0xD6E8FEB86659FD93)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def pack(columns: Sequence[npt.NDArray[np.integer]]) -> U64:
    """One integer for each distinct combination of non-negative integers, in the order of the columns (the
    first counts most).
    """
    key = columns[0].astype(np.uint64)
    size = int(key.max(initial=0)) + 1
    for column in columns[1:]:
        width = int(column.max(initial=0)) + 1
        if size * width >= 1 << 64:
            distinct, number = np.unique(key, return_inverse=True)
            key, size = number.astype(np.uint64), len(distinct)
        if width > 1:
            key = key * np.uint64(width) + column.astype(np.uint64)
            size *= width
    return key


@dataclass(frozen=True, slots=True)
class Groups:
    """Groups of rows with equal keys, in the order of their keys."""

    order: I64
    """Rows, sorted by key; those of a group in any order."""
    starts: I64
    """Where in ``order`` each group begins."""
    member: I64
    """The group of each row of ``order``."""

    @classmethod
    def by(cls, key: U64) -> "Groups":
        """Group rows by an integer key."""
        order = np.argsort(key)  # not stable: a third of the time
        ordered = key[order]
        new = np.empty(len(key), np.bool_)
        new[:1] = True
        np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
        return cls(order, np.flatnonzero(new), np.cumsum(new) - 1)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def first(self) -> I64:
        """The first row of each group."""
        if not len(self):
            return self.order
        first: I64 = np.minimum.reduceat(self.order, self.starts)
        return first

    def sizes(self) -> U64:
        """Rows of each group."""
        return np.diff(self.starts, append=len(self.order)).astype(np.uint64)

    def sum(self, values: npt.NDArray[np.generic]) -> U64:
        """Sum of a column of non-negative numbers or bools."""
        if not len(self):
            return np.zeros(0, np.uint64)
        total: U64 = np.add.reduceat(values[self.order], self.starts, dtype=np.uint64)
        return total

    def total(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sum of a column of numbers whose sums are exact in any order."""
        if not len(self):
            return np.zeros(0, np.float64)
        total: npt.NDArray[np.float64] = np.add.reduceat(values[self.order], self.starts)
        return total

    def max(self, values: U64) -> U64:
        """Largest value of each group."""
        if not len(self):
            return np.zeros(0, np.uint64)
        largest: U64 = np.maximum.reduceat(values[self.order], self.starts)
        return largest

    def best(self, score: U64, hi: U64, lo: U64) -> I64:
        """The row of each group with the largest score; of several, that with the smallest (hi, lo)."""
        top = score[self.order] == self.max(score)[self.member]
        for digits in (hi[self.order], lo[self.order]):
            smallest = (
                np.minimum.reduceat(np.where(top, digits, np.iinfo(np.uint64).max), self.starts)
                if len(self)
                else digits
            )
            top &= digits == smallest[self.member]
        at = np.flatnonzero(top)
        group = self.member[at]
        best: I64 = self.order[at[np.flatnonzero(np.diff(group, prepend=-1))]]
        return best

    def histogram(self, bucket: npt.NDArray[np.int16], counted: Flags | None = None) -> pa.MapArray:
        """Rows of each group by bucket, as ``Map(Int16, UInt64)`` with ascending buckets; rows not
        ``counted`` are left out.
        """
        cell = self.member * _BUCKETS + (bucket[self.order].astype(np.int64) + 1)
        if counted is not None:
            cell = cell[counted[self.order]]
        cell = np.sort(cell)
        new = np.ones(len(cell), np.bool_)
        np.not_equal(cell[1:], cell[:-1], out=new[1:])
        at = np.flatnonzero(new)
        counts = np.diff(at, append=len(cell)).astype(np.uint64)
        distinct = cell[at]
        offsets = np.searchsorted(distinct // _BUCKETS, np.arange(len(self) + 1))
        return pa.MapArray.from_arrays(
            pa.array(offsets.astype(np.int32)),
            pa.array((distinct % _BUCKETS - 1).astype(np.int16)),
            pa.array(counts),
            type=HISTOGRAM,
        )

    def outside_largest(self, limit: int) -> Flags:
        """Rows that are in none of the ``limit`` largest groups; of equal groups the first ones stay."""
        ranked = np.argsort(-self.sizes().astype(np.int64), kind="stable")
        small = np.ones(len(self), np.bool_)
        small[ranked[:limit]] = False
        over = np.empty(len(self.order), np.bool_)
        over[self.order] = small[self.member]
        return over
