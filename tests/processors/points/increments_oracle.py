"""Increments as a plain program makes them: one point after the other, everything remembered in lists."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.support.point_batches import CUMULATIVE, DELTA, Plain

Cells = dict[tuple[bool, int], int]
"""(whether negative, number) -> count."""


@dataclass
class Gained:
    value: float
    sum: float
    zero_count: int
    scale: int
    buckets: Cells


@dataclass
class Expected:
    gained: dict[tuple[str, int, int], Gained] = field(default_factory=dict)
    """(series, start, time) -> what its point adds, unless that is nothing."""
    unknown: int = 0
    older: int = 0
    unusable: int = 0


class Oracle:
    def __init__(self, lookback: int, pane_ns: int) -> None:
        self.lookback, self.pane_ns = lookback, pane_ns
        self.seen: dict[str, list[tuple[int, Plain]]] = defaultdict(list)

    def pane(self, number: int, points: Sequence[Plain]) -> Expected:
        expected = Expected()
        counted = [each for each in points if each.kind != "gauge" and (each.kind != "sum" or each.monotonic)]
        usable = [each for each in counted if is_usable(each)]
        expected.unusable = len(counted) - len(usable)
        for point in sorted(usable, key=lambda each: (key(each), -each.value)):
            before = [each for pane, each in self.seen[series(point)] if pane >= number - self.lookback]
            self.seen[series(point)].append((number, point))
            last = max(before, key=key, default=None)
            if last is not None and key(point) <= key(last):
                expected.older += 1
                continue
            gained = self.gained(number, point, last)
            if gained is None:
                expected.unknown += 1
            elif gained.value or gained.sum or gained.buckets:
                expected.gained[series(point), *key(point)] = gained
        return expected

    def gained(self, number: int, point: Plain, last: Plain | None) -> Gained | None:
        whole = Gained(point.value, total(point), point.zero_count, point.scale, cells(point, point.scale))
        if point.temporality == DELTA and point.kind != "summary":
            return whole
        if last is None:
            return whole if point.start_ns >= max((number - self.lookback) * self.pane_ns, 1) else None
        scale = min(point.scale, last.scale)
        now, then = cells(point, scale), cells(last, scale)
        more = {cell: now.get(cell, 0) - then.get(cell, 0) for cell in now.keys() | then.keys()}
        fell = (
            point.value < last.value
            or point.zero_count < last.zero_count
            or min(more.values(), default=0) < 0
        )
        if fell or point.start_ns > last.start_ns or point.bounds != last.bounds:
            return whole
        return Gained(
            point.value - last.value,
            total(point) - total(last),
            point.zero_count - last.zero_count,
            scale,
            {cell: count for cell, count in more.items() if count},
        )


def series(point: Plain) -> str:
    return f"{point.series}/{point.kind}/{0 if point.kind == 'summary' else point.temporality}"


def key(point: Plain) -> tuple[int, int]:
    is_delta = point.temporality == DELTA and point.kind != "summary"
    return (0 if is_delta else point.start_ns, point.time_ns)


def is_usable(point: Plain) -> bool:
    known = point.kind == "summary" or point.temporality in (DELTA, CUMULATIVE)
    return (
        known
        and math.isfinite(point.value)
        and point.value >= 0
        and point.time_ns > 0
        and not point.flags & 1
    )


def total(point: Plain) -> float:
    return point.sum if point.kind != "sum" and math.isfinite(point.sum) else 0.0


def cells(point: Plain, scale: int) -> Cells:
    found: Counter[tuple[bool, int]] = Counter()
    for is_negative, counts in ((False, point.counts), (True, point.negative_counts)):
        for place, count in enumerate(counts):
            if count:
                found[is_negative, (point.offset + place) >> (point.scale - scale)] += count
    return dict(found)
