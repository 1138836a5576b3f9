"""The points that series' next ones are compared with: the last one of each series within the lookback.

Points of a series are ordered by (start, time): a later start is another life of what is counted. Of a pane
the last point of each series counts. One of an earlier pane stays as long as no later pane has a point as
late as it: it is the one to compare with until its pane has left the lookback, and the later pane's own is
after that. So the points that a reader has are those that a reader has who begins at the first pane of the
lookback, and there is seldom more than one of a series.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from processors.points.buckets import COLUMNS
from schemas.points import DISTRIBUTION_SCHEMA

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
_N = TypeVar("_N", bound=np.generic)

MOST_POINTS = 8_000_000
"""Points of a lookback's panes, each series once a pane: where there are more, the lookback is as many panes
shorter. 10,000 sidecars of 340 series that send every 10 s have 3.4 million in two panes of 5 s.
"""
_NUMBERS_OF_A_POINT = 6
"""So many numbers of distributions take what a point does."""

_NO_DISTRIBUTIONS = pa.RecordBatch.from_pylist(
    [], pa.schema([DISTRIBUTION_SCHEMA.field(name) for name in COLUMNS])
)


@dataclass(frozen=True, slots=True)
class Points:
    """Points as columns of equal length."""

    series: U64
    start_ns: I64
    """0 where it means nothing, as of delta points."""
    time_ns: I64
    value: F64
    """Of a sum; the count of a distribution."""
    distribution: I64
    """Row of ``distributions``; -1: a sum."""
    distributions: pa.RecordBatch
    """buckets.COLUMNS; rows that no point refers to may be among them."""

    def __len__(self) -> int:
        return len(self.series)

    def take(self, rows: I64 | Flags) -> "Points":
        """Some of the points; the distributions stay as they are."""
        return Points(
            self.series[rows],
            self.start_ns[rows],
            self.time_ns[rows],
            self.value[rows],
            self.distribution[rows],
            self.distributions,
        )

    def is_later(self, own: I64, other: "Points", others: I64) -> Flags:
        """Whether these points come after ``others`` of ``other``, pair by pair."""
        start, of_other = self.start_ns[own], other.start_ns[others]
        later: Flags = (start > of_other) | (
            (start == of_other) & (self.time_ns[own] > other.time_ns[others])
        )
        return later


_NONE = np.zeros(0, np.int64)
NO_POINTS = Points(_NONE.astype(np.uint64), _NONE, _NONE, _NONE.astype(np.float64), _NONE, _NO_DISTRIBUTIONS)


@dataclass(frozen=True, slots=True)
class LastPoints:
    """What is known of series when a pane has closed."""

    points: Points
    """By series, then pane: each later one of a series is less late than those before it."""
    pane: I64
    """Of each point."""
    met: Sequence[tuple[int, int]]
    """(pane, how many points its last ones count as), oldest first; the panes that points may be of."""
    since: int = 0
    """The first pane that the points leave room for."""

    def within(self, first_pane: int) -> "LastPoints":
        """Without what is of panes before this one."""
        met = [(pane, count) for pane, count in self.met if pane >= first_pane]
        if len(met) == len(self.met):
            return self
        stay = self.pane >= first_pane
        if stay.all():
            return replace(self, met=met)
        return replace(self, points=self.points.take(stay), pane=self.pane[stay], met=met)

    def find(self, series: U64) -> I64:
        """The place of the last point of each series; -1: none is known."""
        known = self.points.series
        place = np.searchsorted(known, series)
        place[place == len(known)] = -1
        if len(known):
            place[known[place] != series] = -1
        return place

    def with_pane(self, pane: int, last: Points, place: I64) -> "LastPoints":
        """With a pane's last points, one a series, by series. ``place``: :meth:`find` of their series."""
        stay = ~self._overtaken(last, place)
        old, new = self.points.take(stay), last
        where = np.searchsorted(old.series, new.series, side="right") + np.arange(len(new))
        is_old = np.ones(len(old) + len(new), np.bool_)
        is_old[where] = False

        def woven(own: npt.NDArray[_N], other: npt.NDArray[_N]) -> npt.NDArray[_N]:
            both = np.empty(len(is_old), own.dtype)
            both[is_old], both[where] = own, other
            return both

        known = old.distributions.num_rows
        of_new = np.where(new.distribution < 0, new.distribution, new.distribution + known)
        points = Points(
            woven(old.series, new.series),
            woven(old.start_ns, new.start_ns),
            woven(old.time_ns, new.time_ns),
            woven(old.value, new.value),
            *_compact(woven(old.distribution, of_new), old.distributions, new.distributions),
        )
        panes = woven(self.pane[stay], np.full(len(new), pane))
        met = [*self.met, (pane, _size(new))]
        since = max(self.since, _first_that_fits(met))
        return LastPoints(points, panes, met, since).within(since)

    def _overtaken(self, last: Points, place: I64) -> Flags:
        """Which points have a later one, or one as late, in the pane whose last points these are."""
        overtaken = np.zeros(len(self.points), np.bool_)
        own = np.flatnonzero(place >= 0)
        at = place[own]
        while len(own):
            gone = ~self.points.is_later(at, last, own)
            overtaken[at[gone]] = True
            at = at + 1
            more = at < len(self.points)
            own, at = own[more], at[more]
            more = self.points.series[at] == last.series[own]
            own, at = own[more], at[more]
        return overtaken


NOTHING_KNOWN = LastPoints(NO_POINTS, _NONE, [])


def joined(first: pa.RecordBatch, second: pa.RecordBatch) -> pa.RecordBatch:
    """Distributions end to end, in one piece."""
    if not first.num_rows or not second.num_rows:
        return first if first.num_rows else second
    return pa.concat_batches([first, second])


def _compact(distribution: I64, *parts: pa.RecordBatch) -> tuple[I64, pa.RecordBatch]:
    """Only the distributions that points refer to, in their order."""
    is_one = distribution >= 0
    rows = joined(*parts).take(pa.array(distribution[is_one]))
    return np.where(is_one, np.cumsum(is_one) - 1, -1), rows


def _size(points: Points) -> int:
    """How many points these count as: distributions with many buckets as several."""
    rows = points.distribution[points.distribution >= 0]
    lists = (points.distributions.column(name) for name in ("counts", "negative_counts", "bounds"))
    numbers = sum(int(np.diff(each.offsets.to_numpy())[rows].sum()) for each in lists)
    return len(points) + numbers // _NUMBERS_OF_A_POINT


def _first_that_fits(met: Sequence[tuple[int, int]]) -> int:
    """The first of the panes whose points are no more than there may be, or the last one; 0: all are."""
    room = MOST_POINTS
    for at in range(len(met) - 1, -1, -1):
        room -= met[at][1]
        if room < 0:
            return met[min(at + 1, len(met) - 1)][0]
    return 0
