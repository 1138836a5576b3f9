"""What the buckets of histograms gained, without an object for a histogram or a bucket.

A bucket is known by its number: of a histogram with explicit bounds its place (0: up to the first bound), of
an exponential one its index at a scale. Explicit bounds go the same way as a scale and offsets of 0.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

COLUMNS = (
    "count", "zero_count", "sum", "scale", "positive_offset", "negative_offset", "counts", "negative_counts", "bounds",
)  # fmt: skip
"""Of DISTRIBUTION_SCHEMA: those that increments need."""

MOST_COUNT = 2**53
"""Larger counts are no counts: a double has no place for the next one."""

_NONE = -1
_INDEX_BITS = 35
_NEGATIVE = np.int64(1) << (_INDEX_BITS - 1)
_MIDDLE = np.int64(1) << (_INDEX_BITS - 2)
"""Indices of exponential buckets have 33 bits and a sign: an int32 offset, and a place in a list."""


class Lists(NamedTuple):
    """The elements of a list column for some rows, end to end."""

    owner: I64
    """Which of the rows each element is of."""
    place: I64
    """Its place in the list."""
    values: npt.NDArray[np.generic]

    @classmethod
    def of(cls, column: pa.ListArray, rows: I64) -> "Lists":
        """The lists of these rows."""
        offsets = column.offsets.to_numpy().astype(np.int64)
        begin, length = offsets[rows], offsets[rows + 1] - offsets[rows]
        owner = np.repeat(np.arange(len(rows)), length)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(length) - length, length)
        return cls(owner, place, column.values.to_numpy()[begin[owner] + place])


@dataclass(frozen=True, slots=True)
class Buckets:
    """Counts of buckets: of each distribution ascending, of the negative range last; none is 0."""

    owner: I64
    """The place of its distribution among those asked for."""
    is_negative: Flags
    """Of the buckets of negative values."""
    index: I64
    count: I64

    def of(self, owners: Flags) -> "Buckets":
        """Those of some of the owners."""
        wanted = owners[self.owner]
        return Buckets(self.owner[wanted], self.is_negative[wanted], self.index[wanted], self.count[wanted])


def bucket_increments(rows: pa.RecordBatch, current: I64, previous: I64) -> tuple[Buckets, I64, Flags]:
    """What each current distribution has more than its previous one, ``scale`` of these buckets, and which
    pairs are no sequel: bounds differ, or a bucket fell. Their buckets are the current ones, whole.

    ``rows``: COLUMNS. ``current``, ``previous``: rows of it, pair by pair; previous -1: nothing before.
    """
    sequel = (previous != _NONE) & _same_bounds(rows, current, previous)
    scales = rows.column("scale").to_numpy().astype(np.int64)
    scale = np.where(sequel, np.minimum(scales[current], scales[previous]), scales[current])
    pairs = np.flatnonzero(sequel)
    now = _cells(rows, np.arange(len(current)), current, scale)
    then = _cells(rows, pairs, previous[pairs], scale[pairs])
    keys, counts = _reduced(np.concatenate([now[0], then[0]]), np.concatenate([now[1], -then[1]]))
    fell = np.zeros(len(current), np.bool_)
    fell[keys[counts < 0] >> _INDEX_BITS] = True
    gained = _buckets(keys[counts > 0], counts[counts > 0])
    if fell.any():
        scale[fell] = scales[current[fell]]
        again = np.flatnonzero(fell)
        whole = _buckets(*_reduced(*_cells(rows, again, current[again], scale[again])))
        gained = _joined(gained.of(~fell), whole)
    return gained, scale, (previous != _NONE) & (fell | ~sequel)


def over_counts(rows: pa.RecordBatch, wanted: I64) -> Flags:
    """Which of these rows have a count that is none (MOST_COUNT), or buckets that sum up to one."""
    over: Flags = rows.column("count").to_numpy()[wanted] > MOST_COUNT
    over |= rows.column("zero_count").to_numpy()[wanted] > MOST_COUNT
    for name in ("counts", "negative_counts"):
        lists = Lists.of(rows.column(name), wanted)
        over |= np.bincount(lists.owner, lists.values.astype(np.float64), len(wanted)) > MOST_COUNT
    return over


def _same_bounds(rows: pa.RecordBatch, current: I64, previous: I64) -> Flags:
    """Of pairs without a previous one: whatever."""
    bounds = rows.column("bounds")
    offsets = bounds.offsets.to_numpy().astype(np.int64)
    lengths = np.diff(offsets)
    same: Flags = lengths[current] == lengths[previous]
    pairs = np.flatnonzero(same & (previous != _NONE) & (lengths[current] > 0))
    now, then = (Lists.of(bounds, row[pairs]) for row in (current, previous))
    same[pairs[now.owner[now.values != then.values]]] = False
    return same


def _cells(rows: pa.RecordBatch, owners: I64, wanted: I64, scale: I64) -> tuple[I64, I64]:
    """Key (owner, sign, index at this scale) and count of the buckets of ``wanted`` that are not 0."""
    down = np.minimum(rows.column("scale").to_numpy().astype(np.int64)[wanted] - scale, 40)
    keys, counts = [], []
    for name, offset, sign in (
        ("counts", "positive_offset", 0),
        ("negative_counts", "negative_offset", _NEGATIVE),
    ):
        lists = Lists.of(rows.column(name), wanted)
        filled = np.flatnonzero(lists.values)
        owner = lists.owner[filled]
        index = (
            rows.column(offset).to_numpy()[wanted].astype(np.int64)[owner] + lists.place[filled]
        ) >> down[owner]
        keys.append((owners[owner] << _INDEX_BITS) + sign + _MIDDLE + index)
        counts.append(lists.values[filled].astype(np.int64))
    return np.concatenate(keys), np.concatenate(counts)


def _reduced(keys: I64, counts: I64) -> tuple[I64, I64]:
    """The sum of each key, keys ascending."""
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    return keys[starts], np.add.reduceat(counts, starts) if len(starts) else counts


def _buckets(keys: I64, counts: I64) -> Buckets:
    inner = keys & ((np.int64(1) << _INDEX_BITS) - 1)
    is_negative = inner >= _NEGATIVE
    return Buckets(keys >> _INDEX_BITS, is_negative, inner % _NEGATIVE - _MIDDLE, counts)


def _joined(first: Buckets, second: Buckets) -> Buckets:
    owner = np.concatenate([first.owner, second.owner])
    order = np.argsort(owner, kind="stable")
    return Buckets(
        owner[order],
        np.concatenate([first.is_negative, second.is_negative])[order],
        np.concatenate([first.index, second.index])[order],
        np.concatenate([first.count, second.count])[order],
    )
