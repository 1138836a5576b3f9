"""Log time from the log alone: a stamp far ahead counts once later records confirm it, and every reader finds
the same panes.
"""

from hypothesis import given
from hypothesis import strategies as st

from processors.panes import PaneClock, Panes, Step
from processors.stamps import JUMP_NS, Stamps
from schemas.records import Commit, Record
from schemas.units import NS_PER_S

HOUR_S = 3_600
YEARS_S = 10 * 365 * 86_400


def record(offset: int, at_s: float) -> Record:
    return Record(offset, int(at_s * NS_PER_S), b"x", 1)


def log_times(*stamps_s: float) -> list[tuple[float, bool]]:
    """The log time (s) of each record whose log time is known, and whether its stamp was ahead."""
    stamps = Stamps(5 * NS_PER_S)
    return [
        (stamped.log_time_ns / NS_PER_S, stamped.ahead)
        for offset, at_s in enumerate(stamps_s)
        for stamped in stamps.add(record(offset, at_s))
    ]


def test_one_record_an_hour_ahead_is_of_its_predecessors_time() -> None:
    assert log_times(100, 101, 101 + HOUR_S, 102, 103) == [
        (100, False), (101, False), (101, True), (102, False), (103, False)
    ]  # fmt: skip


def test_a_jump_counts_once_the_stamps_after_it_go_on_for_a_pane() -> None:
    after = 100 + 8 * HOUR_S
    assert log_times(100, 101, after, after + 4) == [(100, False), (101, False)]
    assert log_times(100, 101, after, after + 4, after + 5)[2:] == [
        (after, False), (after + 4, False), (after + 5, False)
    ]  # fmt: skip


def test_of_two_jumps_the_one_that_later_records_contradict_does_not_count() -> None:
    after = 100 + 8 * HOUR_S
    assert log_times(100, 101, YEARS_S, after, after + 5)[2:] == [
        (101, True), (after, False), (after + 5, False)
    ]  # fmt: skip


def test_the_first_record_of_a_log_may_be_ahead_too() -> None:
    assert log_times(100 + HOUR_S, 100, 101, 102) == [
        (100, True), (100, False), (101, False), (102, False)
    ]  # fmt: skip


def test_held_records_are_bounded() -> None:
    assert len(log_times(100, 101, *(YEARS_S + 0.0001 * number for number in range(25_000)))) > 20_000


STAMPS = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from([0, 0, 0, 0, HOUR_S, 2 * HOUR_S, YEARS_S])),
    min_size=1,
    max_size=40,
)


@given(STAMPS, st.lists(st.integers(0, 39), max_size=2), st.data())
def test_readers_that_begin_at_any_commit_find_the_same_panes(
    gaps_s: list[tuple[int, int]], silences: list[int], data: st.DataObject
) -> None:
    """Stamps go on by some seconds; some are ahead for one record; after a silence all are an hour later."""
    at_s, log = 1_000, []
    for offset, (gap, ahead) in enumerate(gaps_s):
        at_s += gap + HOUR_S * (offset in silences)
        log.append(record(offset, at_s + ahead))
    for tick in range(12):  # what settles everything, if only ticks
        log.append(record(len(log), at_s + 5 * tick))

    def panes(commit: Commit | None = None) -> Panes:
        return Panes(PaneClock(5 * NS_PER_S, NS_PER_S), 1, 3, 1 << 20, commit)

    def feed(cutter: Panes, records: list[Record]) -> list[Step]:
        return [step for one in records for step in cutter.add(one)]

    def closed(steps: list[Step]) -> dict[int, list[int]]:
        return {
            step.closed.number: [one.offset for one in step.closed.records]
            for step in steps
            if step.emit_closed
        }

    whole = feed(panes(), log)
    offsets = [offset for found in closed(whole).values() for offset in found]
    assert offsets == sorted(offsets)
    stop = data.draw(st.integers(0, len(log)))
    before = feed(panes(), log[:stop])
    for commit in [step.commit for step in before]:
        second = panes(commit)
        after = feed(second, log[second.offset or 0 :])
        assert {**closed(before), **closed(after)} == closed(whole)


def test_a_partition_with_one_record_an_hour_ahead_goes_on_closing_panes() -> None:
    cutter = Panes(PaneClock(5 * NS_PER_S, 0), 1, 3, 1 << 20)
    log = [record(0, 1_000), record(1, 1_001), record(2, 1_001 + HOUR_S)]
    log += [record(offset, 1_000 + 5 * offset) for offset in range(3, 8)]
    steps = [step for one in log for step in cutter.add(one)]
    assert [step.closed.number for step in steps] == [200, 203, 204, 205, 206]
    assert [step.closed.ahead for step in steps] == [1, 0, 0, 0, 0]
    assert JUMP_NS < HOUR_S * NS_PER_S
