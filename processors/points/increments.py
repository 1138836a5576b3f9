"""What counters gained: increments of sums, counts and buckets in the 10 s slot of their points' time.

A cumulative point adds what its series gained since the last point of it. Where the value fell, or the start
is a later one, the series began again and adds all of it. A series that is met for the first time adds all
of it when it started within the lookback; else its past is unknown, and the point adds nothing. A delta point
adds itself. A point that is not later than the last one of its series (a copy, or an older one) adds nothing.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from processors.points.buckets import COLUMNS, Buckets, bucket_increments, over_counts
from processors.points.last_points import F64, I64, Flags, LastPoints, Points, joined
from processors.rows import Rows
from processors.slots import PaneTime
from schemas.points import KINDS, PointBatch

SUM, SUMMARY = KINDS.index("sum"), KINDS.index("summary")
DELTA, CUMULATIVE = 1, 2
"""OTLP AggregationTemporality. A summary has none, and is cumulative."""
NO_RECORDED_VALUE = 1
"""OTLP DataPointFlags: the series ends, or has a gap. Such a point adds nothing and is not remembered."""

_N = TypeVar("_N", bound=np.generic)
_POINT_COLUMNS = ("series", "kind", "temporality", "flags", "start_ns", "time_ns", "value")


@dataclass(frozen=True, slots=True)
class Increments:
    """What the counters of a pane gained."""

    rows: pl.DataFrame
    """``point`` UInt32 (row of the batch), ``slot`` UInt32 (s since 1970), ``value`` Float64 (of a sum; of a
    distribution its count), ``sum`` Float64 (of a distribution), ``zero_count`` Int64 and ``scale`` Int64 (of
    an exponential histogram's buckets). By series, then time. Points that add nothing have no row.
    """
    buckets: Buckets
    """``owner``: row of ``rows``."""
    unknown: Rows
    """Points (rows of the batch, as below) that add nothing, as what their series had before is not known."""
    older: Rows
    """Points that are not later than the last one of their series, copies among them."""
    unusable: Rows
    """Points without a value, with one that is no count (negative, infinite, of a distribution beyond 2^53),
    without a time, or of no known temporality.
    """


@dataclass(frozen=True, slots=True)
class _Pane:
    """Usable points of a pane by series, start, time; no two alike in these."""

    points: Points
    row: Rows
    """Of the batch."""
    is_delta: Flags
    copies: Rows
    unusable: Rows

    def runs(self) -> tuple[I64, I64]:
        """Where each series begins, and the number of the series of each point."""
        series = self.points.series
        new = np.ones(len(series), np.bool_)
        np.not_equal(series[1:], series[:-1], out=new[1:])
        return np.flatnonzero(new), np.cumsum(new) - 1


def is_counted(batch: PointBatch) -> Flags:
    """Which points are of counters: monotonic sums, and all kinds of distributions."""
    kind = batch.points.column("kind").to_numpy()
    monotonic = batch.points.column("monotonic").to_numpy(zero_copy_only=False)
    counted: Flags = (kind > SUM) | ((kind == SUM) & monotonic)
    return counted


def increments(
    batch: PointBatch, rows: Rows, last: LastPoints, *, pane: int, lookback: int, time: PaneTime
) -> tuple[Increments, LastPoints]:
    """What the counters among these rows gained, and the last points for the next pane.

    ``rows``: all that the pane has, copies too: which of them were dropped as copies depends on panes before
    the lookback. ``last``: what the previous pane with points gave; ``lookback``: in panes. The result is a
    function of the panes [pane - lookback, pane].
    """
    own = _usable(batch, rows[is_counted(batch)[rows]])
    first_pane = max(pane - lookback, last.since)
    last = last.within(first_pane)
    starts, series = own.runs()
    place = last.find(own.points.series[starts])
    before = _Before.of(own.points, series, last.points, place[series])
    gained = _gains(own, before, time, time.start_ns - (pane - first_pane) * time.pane_ns)
    ends = np.append(starts[1:], len(series)) - 1 if len(starts) else starts
    return gained, last.with_pane(pane, own.points.take(ends), place)


@dataclass(frozen=True, slots=True)
class _Before:
    """What each point of a pane is compared with: the point before it in the pane, else the last one."""

    is_later: Flags
    """Whether the point counts: there is none before it, or it is later."""
    is_known: Flags
    """Whether there is one before it."""
    start_ns: I64
    value: F64
    distributions: pa.RecordBatch
    """The pane's, then those that are needed of the last points."""
    distribution: I64
    """Row of ``distributions``; -1: none."""

    @classmethod
    def of(cls, points: Points, series: I64, last: Points, place: I64) -> "_Before":
        """``series``: the number of each point's series, ascending; ``place``: its last point; -1: none."""
        is_later = place < 0
        met = np.flatnonzero(place >= 0)
        is_later[met] = points.is_later(met, last, place[met])
        in_pane = np.zeros(len(points), np.bool_)
        in_pane[1:] = (series[1:] == series[:-1]) & is_later[:-1]
        inner = np.flatnonzero(in_pane)
        outer = np.flatnonzero(~in_pane & (place >= 0))

        def each(own: npt.NDArray[_N], other: npt.NDArray[_N]) -> npt.NDArray[_N]:
            column = np.zeros(len(points), own.dtype)
            column[inner], column[outer] = own[inner - 1], other[place[outer]]
            return column

        needed = outer[points.distribution[outer] >= 0]
        of_last = last.distributions.take(pa.array(last.distribution[place[needed]]))
        distribution = np.full(len(points), -1)
        distribution[inner] = points.distribution[inner - 1]
        distribution[needed] = points.distributions.num_rows + np.arange(len(needed))
        return cls(
            is_later,
            in_pane | (place >= 0),
            each(points.start_ns, last.start_ns),
            each(points.value, last.value),
            joined(points.distributions, of_last),
            distribution,
        )


def _gains(own: _Pane, before: _Before, time: PaneTime, born_from_ns: int) -> Increments:
    points = own.points
    goes_on = before.is_known & ~own.is_delta
    goes_on &= (points.value >= before.value) & (points.start_ns <= before.start_ns)
    is_whole = own.is_delta | before.is_known | (points.start_ns >= max(born_from_ns, 1))
    adds = np.flatnonzero(before.is_later & is_whole)
    value, goes_on = points.value[adds], goes_on[adds]
    sums, zeros, scale = np.zeros(len(adds)), np.zeros(len(adds), np.int64), np.zeros(len(adds), np.int64)
    at = np.flatnonzero(points.distribution[adds] >= 0)
    current, previous = points.distribution[adds[at]], before.distribution[adds[at]]
    zeros_of = before.distributions.column("zero_count").to_numpy().astype(np.int64)
    goes_on[at] &= zeros_of[current] >= zeros_of[previous]
    buckets, scale[at], is_other = bucket_increments(
        before.distributions, current, np.where(goes_on[at], previous, -1)
    )
    goes_on[at[is_other]] = False
    of_sums = before.distributions.column("sum").to_numpy()
    of_sums = np.where(np.isfinite(of_sums), of_sums, 0)
    sums[at] = of_sums[current] - np.where(goes_on[at], of_sums[previous], 0)
    zeros[at] = zeros_of[current] - np.where(goes_on[at], zeros_of[previous], 0)
    value = value - np.where(goes_on, before.value[adds], 0)
    is_some = (value > 0) | (sums != 0)
    is_some[at[buckets.owner]] = True
    some = np.flatnonzero(is_some)
    rows = pl.DataFrame(
        {
            "point": own.row[adds[some]].astype(np.uint32),
            "slot": time.slots(points.time_ns[adds[some]]),
            "value": value[some],
            "sum": sums[some],
            "zero_count": zeros[some],
            "scale": scale[some],
        }
    )
    return Increments(
        rows,
        replace(buckets, owner=np.cumsum(is_some)[at[buckets.owner]] - 1),
        unknown=own.row[before.is_later & ~is_whole],
        older=np.concatenate([own.copies, own.row[~before.is_later]]),
        unusable=own.unusable,
    )


def _usable(batch: PointBatch, rows: Rows) -> _Pane:
    """The usable ones of these points of counters."""
    points = {name: batch.points.column(name).to_numpy()[rows] for name in _POINT_COLUMNS}
    kind, temporality = points["kind"], points["temporality"]
    is_sum = kind == SUM
    distribution = np.full(len(rows), -1)
    distribution[~is_sum] = np.searchsorted(batch.distributions.column("point").to_numpy(), rows[~is_sum])
    distributions = batch.distributions.select(COLUMNS)
    value = points["value"].copy()
    value[~is_sum] = distributions.column("count").to_numpy()[distribution[~is_sum]]
    usable = np.isfinite(value) & (value >= 0) & (points["time_ns"] > 0)
    usable &= points["flags"] & NO_RECORDED_VALUE == 0
    usable &= (kind == SUMMARY) | (temporality == DELTA) | (temporality == CUMULATIVE)
    usable[~is_sum] &= ~over_counts(distributions, distribution[~is_sum])
    is_delta = (temporality == DELTA) & (kind != SUMMARY)
    start_ns = np.where(is_delta, 0, points["start_ns"])
    found = Points(points["series"], start_ns, points["time_ns"], value, distribution, distributions)
    kept = np.flatnonzero(usable)
    found, row, is_delta = found.take(kept), rows[kept], is_delta[kept]
    order, copies = _in_order(batch, found, row)
    return _Pane(found.take(order), row[order], is_delta[order], row[copies], rows[~usable])


def _in_order(batch: PointBatch, points: Points, row: Rows) -> tuple[I64, I64]:
    """Points by series, start, time; and, apart, those alike in these but for the largest."""
    order = np.argsort(points.series, kind="stable")
    if _rises(points.take(order)).all():
        return order, order[:0]  # what is sent by one sender, in time
    identity = [batch.points.column(name).to_numpy()[row] for name in ("identity_lo", "identity_hi")]
    order = np.lexsort((*identity, -points.value, points.time_ns, points.start_ns, points.series))
    is_first = np.append(True, _rises(points.take(order)))
    return order[is_first], order[~is_first]


def _rises(points: Points) -> Flags:
    """Which points, from the second on, are of another series than the one before, or later."""
    here, there = np.arange(1, len(points)), np.arange(len(points) - 1)
    rises: Flags = (points.series[1:] != points.series[:-1]) | points.is_later(here, points, there)
    return rises
