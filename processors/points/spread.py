"""Buckets of senders' histograms -> buckets of base 2^(1/16), deterministically.

A sender's bucket that is wider than one of ours is spread over those between its bounds as Prometheus'
``histogram_quantile`` does, evenly by value, in up to 16 shares; where in its share each stands differs from
row to row and slot to slot, so that sums over many are even. No count leaves its bucket's bounds by more than
one bucket of ours (4.4 %). What is over the last bound stands at that bound.
"""

from math import sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from processors.points.buckets import Buckets
from processors.points.last_points import F64, I64, Flags
from schemas.histogram import PER_OCTAVE, UPPER_NS
from schemas.tables import HISTOGRAM

_SHARES = 16
_ROOT = sqrt(sqrt(sqrt(sqrt(2.0))))
"""2^(1/16): roots and products are the same on every machine, unlike powers."""
_ROOTS = np.cumprod([1.0, *[_ROOT] * (PER_OCTAVE - 1)])
_NARROW = 1.0001 * _ROOT
_UPPER = np.array(UPPER_NS, np.float64)
_MOST_INDEX = PER_OCTAVE * 400
_SCALE = 4
_BUCKETS = 1 << 10


class Cells(NamedTuple):
    """Counts between two values."""

    owner: I64
    low: F64
    high: F64
    number: I64
    """How many there are."""

    def of(self, rows: I64) -> "Cells":
        """Some of them."""
        return Cells(self.owner[rows], self.low[rows], self.high[rows], self.number[rows])


def cells(buckets: Buckets, bounds: pa.ListArray, of_owner: I64, is_native: Flags, scale: I64) -> Cells:
    """The bounds of buckets, in the sender's unit.

    ``of_owner``: of each owner the row of ``bounds`` that has its explicit bounds; ``is_native``: whether its
    buckets are an exponential histogram's, of ``scale``.
    """
    owner, index = buckets.owner, buckets.index
    low, high = np.zeros(len(owner)), np.zeros(len(owner))
    native = np.flatnonzero(is_native[owner])
    down = np.maximum(scale[owner[native]] - _SCALE, 0)
    up = np.clip(_SCALE - scale[owner[native]], 0, 20)
    first = np.clip(index[native] >> down, -_MOST_INDEX, _MOST_INDEX)
    low[native] = _power(first << up)
    high[native] = _power((first + 1) << up)
    explicit = np.flatnonzero(~is_native[owner])
    offsets = bounds.offsets.to_numpy().astype(np.int64)
    row, place = of_owner[owner[explicit]], index[explicit]
    begin, count = offsets[row], offsets[row + 1] - offsets[row]
    values = np.append(bounds.values.to_numpy(), 0.0)
    last = np.where(count > 0, values[np.maximum(begin + count - 1, 0)], 0.0)
    high[explicit] = np.where(place < count, values[np.minimum(begin + place, len(values) - 1)], last)
    low[explicit] = np.where(
        place >= count, last, np.where(place > 0, values[np.maximum(begin + place - 1, 0)], 0.0)
    )
    gone = buckets.is_negative
    low[gone] = high[gone] = 0.0
    finite = np.nan_to_num(np.stack([low, high]), nan=0.0, posinf=1e300, neginf=0.0)
    return Cells(owner, np.maximum(finite[0], 0.0), np.maximum(finite[1], 0.0), buckets.count)


def spread(given: Cells, salt: npt.NDArray[np.uint64]) -> tuple[I64, I64, I64]:
    """Owner, bucket of base 2^(1/16) and count; of one owner a bucket may come several times.

    Bounds are in ns (or in what buckets count); ``salt``: a number of each cell.
    """
    is_wide = given.high > given.low * _NARROW
    shares = np.where(is_wide, np.minimum(given.number, _SHARES), 1)
    of_cell = np.repeat(np.arange(len(shares)), shares)
    number = np.arange(len(of_cell)) - np.repeat(np.cumsum(shares) - shares, shares)
    offset = np.where(is_wide, (salt * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(11)) * 2.0**-53, 0.5)
    at = (number + offset[of_cell]) / shares[of_cell]
    low, high = given.low[of_cell], given.high[of_cell]
    value = np.maximum(low + (high - low) * at, 0.0)
    bucket = np.searchsorted(_UPPER, value, side="left") - 1
    each, more = np.divmod(given.number, np.maximum(shares, 1))
    count = each[of_cell] + (number < more[of_cell])
    return given.owner[of_cell], np.clip(bucket, -1, len(UPPER_NS) - 2), count


def histogram(rows: int, owner: I64, bucket: I64, count: I64) -> pa.MapArray:
    """A map of buckets, ascending, for each of so many rows."""
    cell = owner * _BUCKETS + bucket + 1
    order = np.argsort(cell, kind="stable")
    cell, count = cell[order], count[order]
    at = np.flatnonzero(np.diff(cell, prepend=-1))
    sums = np.add.reduceat(count, at) if len(at) else count
    distinct = cell[at]
    offsets = np.searchsorted(distinct // _BUCKETS, np.arange(rows + 1))
    return pa.MapArray.from_arrays(
        pa.array(offsets.astype(np.int32)),
        pa.array((distinct % _BUCKETS - 1).astype(np.int16)),
        pa.array(sums.astype(np.uint64)),
        type=HISTOGRAM,
    )


def _power(index: I64) -> F64:
    """2^(index/16)."""
    clipped = np.clip(index, -_MOST_INDEX, _MOST_INDEX)
    power: F64 = np.ldexp(_ROOTS[clipped % PER_OCTAVE], clipped // PER_OCTAVE)
    return power
