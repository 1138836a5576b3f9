"""Increments: equal to those of a plain program, whatever the order, copies, panes, restarts and resets."""

from collections import defaultdict
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.points import last_points
from processors.points.increments import Increments, increments
from processors.points.last_points import NOTHING_KNOWN, LastPoints
from processors.slots import PaneTime
from tests.processors.points.increments_oracle import Expected, Gained, Oracle, key, series
from tests.support.examples import examples
from tests.support.point_batches import CUMULATIVE, DELTA, Plain, batch_of

PANE_NS = 5_000_000_000
LOOKBACK = 4
FIRST = 100  # number of the first pane
S = 1_000_000_000


def step(
    last: LastPoints, pane: int, points: Sequence[Plain], lookback: int = LOOKBACK
) -> tuple[Increments, LastPoints]:
    batch = batch_of(points)
    time = PaneTime(pane * PANE_NS, PANE_NS, 0)
    return increments(
        batch, np.arange(len(points), dtype=np.uint32), last, pane=pane, lookback=lookback, time=time
    )


def plainly(found: Increments, points: Sequence[Plain]) -> Expected:
    """Increments as the oracle has them."""
    rows = found.rows.to_dicts()
    cells: dict[int, dict[tuple[bool, int], int]] = defaultdict(dict)
    for owner, *cell, count in zip(
        *(getattr(found.buckets, name).tolist() for name in ("owner", "is_negative", "index", "count")),
        strict=True,
    ):
        cells[owner][cell[0], cell[1]] = count
    gained = {}
    for number, row in enumerate(rows):
        point = points[row["point"]]
        assert row["slot"] == point.time_ns // S // 10 * 10
        gained[series(point), *key(point)] = Gained(
            row["value"], row["sum"], row["zero_count"], row["scale"], cells[number]
        )
    assert len(gained) == len(rows)
    return Expected(gained, len(found.unknown), len(found.older), len(found.unusable))


def totals(log: Sequence[Sequence[Plain]]) -> dict[tuple[str, int], Any]:
    """Value and buckets by series and slot."""
    last = NOTHING_KNOWN
    sums: dict[tuple[str, int], Any] = defaultdict(lambda: [0, defaultdict(int)])
    for number, points in enumerate(log):
        found, last = step(last, FIRST + number, points, lookback=FIRST)
        for (of, _, time_ns), each in plainly(found, points).gained.items():
            of_slot = sums[of, time_ns // S // 10]
            of_slot[0] += each.value
            for cell, count in each.buckets.items():
                of_slot[1][cell] += count
    return dict(sums)


seeds = st.integers(0, 2**32)
small = st.integers(0, 6)
counts = st.lists(small, max_size=3).map(tuple)


@st.composite
def points(draw: st.DrawFn, last_pane: int = 8) -> Plain:
    kind = draw(st.sampled_from(["sum", "sum", "histogram", "exponential_histogram", "summary", "gauge"]))
    starts = [0, (FIRST - 9) * PANE_NS, (FIRST + 1) * PANE_NS, (FIRST + 3) * PANE_NS]
    buckets: dict[str, Any] = {}
    if kind == "histogram":
        buckets = {
            "counts": draw(counts),
            "bounds": draw(st.sampled_from([(), (1.0,), (1.0, 2.0), (1.0, 3.0)])),
        }
    if kind == "exponential_histogram":
        buckets = {
            "counts": draw(counts), "negative_counts": draw(counts), "scale": draw(st.integers(-2, 2)),
            "offset": draw(st.integers(-3, 3)), "zero_count": draw(st.integers(0, 2)),
        }  # fmt: skip
    value: float = draw(small)
    if kind in ("sum", "gauge"):
        value = draw(st.sampled_from([value, value, value, value, float("nan"), float("inf"), -1]))
    return Plain(
        series=draw(st.sampled_from("ab")),
        start_ns=draw(st.sampled_from(starts)),
        time_ns=draw(st.sampled_from([0, *(FIRST * PANE_NS + 2 * S * n for n in range(1, 9))])),
        value=value,
        kind=kind,
        temporality=draw(st.sampled_from([CUMULATIVE, CUMULATIVE, CUMULATIVE, DELTA, 0])),
        monotonic=draw(st.sampled_from([True, True, True, False])),
        flags=draw(st.sampled_from([0, 0, 0, 0, 1])),
        sum=draw(st.sampled_from([0.0, 1.0, 2.0, float("nan")])),
        **buckets,
    )


logs = st.lists(st.lists(points(), max_size=6), min_size=1, max_size=9)
"""Panes of points."""


def distinct(log: list[list[Plain]]) -> list[list[Plain]]:
    """Of points of a pane that are alike in series, start and time only the first, as equal values of theirs
    are told apart by a hash.
    """
    kept = []
    for pane in log:
        of_pane: dict[tuple[str, tuple[int, int]], Plain] = {}
        for point in pane:
            of_pane.setdefault((series(point), key(point)), point)
        kept.append(list(of_pane.values()))
    return kept


@examples(60)
@given(logs)
def test_as_a_plain_program_has_them(log: list[list[Plain]]) -> None:
    oracle, last = Oracle(LOOKBACK, PANE_NS), NOTHING_KNOWN
    for number, of_pane in enumerate(distinct(log), FIRST):
        found, last = step(last, number, of_pane)
        assert plainly(found, of_pane) == oracle.pane(number, of_pane)


@examples(25)
@given(logs, seeds)
def test_a_function_of_the_lookback_whatever_the_order_in_panes(log: list[list[Plain]], seed: int) -> None:
    """A reader who begins at the lookback, and reads each pane's points in another order, finds the same."""
    whole, last = [], NOTHING_KNOWN
    for number, of_pane in enumerate(log, FIRST):
        found, last = step(last, number, of_pane)
        whole.append(found)
    random = Random(seed)
    shuffled = [random.sample(of_pane, len(of_pane)) for of_pane in log]
    for number in range(len(log)):
        last = NOTHING_KNOWN
        for earlier in range(max(0, number - LOOKBACK), number):
            last = step(last, FIRST + earlier, shuffled[earlier])[1]
        again, _ = step(last, FIRST + number, shuffled[number])
        assert plainly(again, shuffled[number]) == plainly(whole[number], log[number])


class Counter:
    """What is counted, as its sender knows it."""

    def __init__(self, name: str, random: Random) -> None:
        self.name, self.random = name, random
        self.buckets, self.start_ns = [0, 0, 0], FIRST * PANE_NS
        self.truth: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0, 0])

    def flush(self, time_ns: int) -> list[Plain]:
        if self.random.random() < 0.15:
            self.buckets, self.start_ns = [0, 0, 0], time_ns - S
        for place in range(3):
            more = self.random.choice([0, 0, 1, 5])
            self.buckets[place] += more
            self.truth[self.name, time_ns // S // 10][place] += more
        common = (self.name, self.start_ns, time_ns, sum(self.buckets))
        return [
            Plain(*common),
            Plain(*common, kind="histogram", counts=tuple(self.buckets), bounds=(1.0, 2.0)),
        ]


@examples(25)
@given(seeds)
def test_sums_are_the_truth_whatever_copies_and_cuts_there_are(seed: int) -> None:
    """Counters that begin again now and then; each flush comes in order, once or more often, in panes cut
    anywhere. What they gained is all there.
    """
    random = Random(seed)
    counters = [Counter(name, random) for name in "abc"]
    flushes = [
        point
        for number in range(1, 20)
        for each in counters
        for point in each.flush(FIRST * PANE_NS + number * 3 * S)
    ]
    log: list[list[Plain]] = [[]]
    for at, point in enumerate(flushes):
        if random.random() < 0.1:
            log.append([])
        log[-1].append(point)
        if random.random() < 0.3:
            log[-1].append(random.choice(flushes[max(0, at - 12) : at + 1]))
    for points_of_pane in log:
        random.shuffle(points_of_pane)
    found = totals(log)
    for (name, slot), gained in (
        (each, gained) for counter in counters for each, gained in counter.truth.items()
    ):
        value, cells = found.get((f"{name}/histogram/2", slot), [0, {}])
        assert value == found.get((f"{name}/sum/2", slot), [0])[0] == sum(gained)
        assert [cells.get((False, place), 0) for place in range(3)] == gained


def gains(*panes: list[Plain]) -> list[list[float]]:
    """The values that each pane's points add, by time."""
    last, found = NOTHING_KNOWN, []
    for number, of_pane in enumerate(panes, FIRST):
        some, last = step(last, number, of_pane)
        found.append(some.rows["value"].to_list())
    return found


def at(second: int, value: float, start_s: int = 1, **more: Any) -> Plain:
    return Plain("a", start_s * S, second * S, value, **more)


def test_each_rule() -> None:
    born = FIRST * PANE_NS // S
    assert gains([at(600, 5)], [at(610, 7)], [at(620, 7)]) == [[], [2], []], "an unknown past"
    assert gains([at(600, 5, born)], [at(610, 7, born)]) == [[5], [2]], "born within the lookback"
    assert gains([at(600, 5, born)], [at(610, 3, born)]) == [[5], [3]], "the value fell"
    assert gains([at(600, 5, born)], [at(610, 9, born + 105)]) == [[5], [9]], "the start moved"
    assert gains([at(610, 9, born)], [at(600, 5, born)], [at(620, 10, born)]) == [[9], [], [1]], (
        "an older point"
    )
    assert gains([at(600, 9, born + 5)], [at(610, 99, born)], [at(620, 10, born + 5)]) == [[9], [], [1]], (
        "a life that is over"
    )
    delta = {"temporality": DELTA}
    assert gains([at(600, 5, **delta), at(610, 2, **delta)], [at(610, 2, **delta)]) == [[5, 2], []], "delta"
    assert gains([at(600, 5)], [], [], [], [], [at(610, 7)]) == [[]] * 6, "longer ago than the lookback"
    assert gains([at(600, 5)], [], [], [], [at(610, 7)])[-1] == [2]
    assert gains([at(600, 5)], [at(605, 0, flags=1)], [at(610, 7)])[-1] == [2], "no recorded value"
    assert gains([at(600, 5, monotonic=False), at(600, 1, kind="gauge")]) == [[]], "no counters"


def test_counts_that_are_none_are_left_out() -> None:
    for huge in ((2**60,), (2**52,) * 3):
        found, last = step(NOTHING_KNOWN, FIRST, [at(600, 5, 500, kind="exponential_histogram", counts=huge)])
        assert (len(found.unusable), len(found.rows), len(last.points)) == (1, 0, 0)
    far = [
        at(600 + n, 1, 500, kind="exponential_histogram", counts=(1,), offset=offset, scale=scale)
        for n, (offset, scale) in enumerate([(2**31 - 1, 2**31 - 1), (-(2**31), -(2**31)), (2**31 - 1, 20)])
    ]
    gained, _ = step(NOTHING_KNOWN, FIRST, far)
    assert gained.rows["value"].to_list() == [1, 1, 1], "no bucket is another's sequel"
    assert gained.buckets.count.tolist() == [1, 1, 1]


def test_one_point_a_series_is_remembered() -> None:
    last = NOTHING_KNOWN
    for number in range(20):
        flush = [Plain(str(n), 0, (FIRST + number) * 5 * S, number + n) for n in range(50)]
        flush += [each._replace(kind="histogram", counts=(1, 2)) for each in flush]
        _, last = step(last, FIRST + number, flush)
        assert len(last.points) == last.points.distributions.num_rows * 2 == 100
    assert len(step(last, FIRST + 30, [])[1].points) == 0, "none is remembered for longer than the lookback"


def test_many_points_shorten_the_lookback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_points, "MOST_POINTS", 5)
    a, b, c = (Plain(name, 0, 600 * S, 1) for name in "abc")
    later = [each._replace(time_ns=610 * S, value=3) for each in (a, b, c)]
    last = step(step(NOTHING_KNOWN, FIRST, [a, b])[1], FIRST + 1, [b, c])[1]
    assert step(last, FIRST + 2, later)[0].unknown.size == 0
    last = step(last, FIRST + 2, [c, Plain("d", 0, 600 * S, 1)])[1]
    found, _ = step(last, FIRST + 3, later)
    assert (len(found.unknown), found.rows["value"].to_list()) == (1, [2, 2])
    born = later[0]._replace(start_ns=FIRST * PANE_NS)
    assert step(last, FIRST + 3, [born])[0].unknown.size == 1, "it may be counted already"
    again = step(step(NOTHING_KNOWN, FIRST + 1, [b, c])[1], FIRST + 2, [c, Plain("d", 0, 600 * S, 1)])[1]
    assert plainly(step(again, FIRST + 3, later)[0], later) == plainly(found, later)


def test_many_buckets_shorten_the_lookback(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many points as their numbers take."""
    monkeypatch.setattr(last_points, "MOST_POINTS", 20)
    wide = Plain("b", 0, 600 * S, 60, kind="exponential_histogram", counts=(1,) * 60)
    later = at(610, 7)
    for others, unknown in (([], 0), ([wide], 0), ([wide, wide._replace(series="c")], 1)):
        last = step(step(NOTHING_KNOWN, FIRST, [at(600, 5)])[1], FIRST + 1, others)[1]
        assert step(last, FIRST + 2, [later])[0].unknown.size == unknown
