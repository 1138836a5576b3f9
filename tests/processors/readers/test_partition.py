"""What is done with each offset that arrives, against a model: every record that there is gets fed once, in
order; what is gone is lost.
"""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.panes import Emit
from processors.readers.cursor import SEEK_EVERY_S, SEEKS, Arrival
from processors.readers.partition import Partition
from schemas.errors import LogUnavailable
from schemas.records import Record, TopicPartition
from schemas.topics import SPANS

TP = TopicPartition(SPANS, 0)


class Recorder:
    """A processor that notes what it is given."""

    def __init__(self, offset: int | None) -> None:
        self.offset = offset
        self.fed: list[int] = []
        self.lost: list[int] = []
        self.log_time_ns = 0

    def may_settle(self, record: Record) -> bool:
        return True

    def feed(self, records: Sequence[Record]) -> list[Emit]:
        self.fed += [record.offset for record in records]
        return []

    def gap(self, wanted: int, beginning: int) -> None:
        self.lost += range(wanted, beginning)


OFFSETS = st.integers(0, 30)


@given(
    without_record=st.sets(OFFSETS, max_size=4),
    dropped=st.sets(OFFSETS, max_size=6),
    beginnings=st.dictionaries(st.integers(0, 60), OFFSETS, max_size=3),
    committed=st.one_of(st.none(), OFFSETS),
)
def test_each_record_is_fed_once_whatever_is_dropped_on_the_way_or_removed(
    without_record: set[int], dropped: set[int], beginnings: dict[int, int], committed: int | None
) -> None:
    """A log of offsets 0 to 31; ``dropped``: lost on the way when first fetched; ``beginnings``: where
    retention is at a step.
    """
    there = [
        offset for offset in range(32) if offset not in without_record
    ]  # 31 is always there, to show gaps before it
    beginning = beginnings.get(0, 0)
    recorder = Recorder(committed)
    start = beginning if committed is None else committed
    partition = Partition(TP, recorder, beginning, 32)
    at, on_the_way = partition.next_offset, set(dropped)
    for step in range(1, 1_000):
        beginning = max(beginning, beginnings.get(step, 0))
        offset = next((offset for offset in there if offset >= max(at, beginning)), None)
        if offset is None:
            break
        at = offset + 1
        if offset in on_the_way:
            on_the_way.remove(offset)
            continue
        now_s = step * 2 * SEEK_EVERY_S
        arrival = partition.arrival(offset, now_s)
        if arrival is Arrival.AHEAD:
            there_now = next(known for known in there if known >= max(partition.next_offset, beginning))
            seek = partition.bridge(offset, beginning, there_now, now_s)
            if seek is not None:
                at = seek
                continue
            arrival = Arrival.TAKE
        if arrival is Arrival.TAKE:
            partition.feed([Record(offset, offset, b"", 0)])
    else:
        pytest.fail("it does not come to an end")
    assert recorder.fed == sorted(set(recorder.fed))
    assert recorder.lost == sorted(set(recorder.lost))
    assert set(recorder.lost).isdisjoint(recorder.fed)
    assert set(recorder.lost) <= set(range(start, beginning))
    assert set(recorder.fed) | set(recorder.lost) >= {offset for offset in there if offset >= start}


def test_a_record_that_kafka_has_but_that_stays_away_is_sought_some_times_and_is_then_lost() -> None:
    recorder = Recorder(0)
    partition = Partition(TP, recorder, 0, 10)
    for seek in range(SEEKS):
        now_s = 10.0 * seek
        assert partition.arrival(3, now_s) is Arrival.AHEAD
        assert partition.bridge(3, 0, 1, now_s) == 1, "there is no record at 0"
        assert partition.arrival(4, now_s + SEEK_EVERY_S / 2) is Arrival.SKIP, (
            "what was on its way is let pass"
        )
    assert partition.bridge(3, 0, 1, 100.0) is None
    assert partition.arrival(3, 100.0) is Arrival.TAKE
    assert recorder.lost == [1, 2]
    partition.feed([Record(3, 0, b"", 0)])
    assert partition.bridge(5, 0, 4, 200.0) == 4, "the next one is sought again"


def test_offsets_at_which_kafka_has_no_record_are_passed_over_at_once() -> None:
    recorder = Recorder(0)
    partition = Partition(TP, recorder, 0, 10)
    assert partition.bridge(3, 0, 3, 0.0) is None
    assert partition.arrival(3, 0.0) is Arrival.TAKE
    assert recorder.lost == []


def test_removed_records_are_lost_up_to_the_one_at_hand() -> None:
    recorder = Recorder(2)
    partition = Partition(TP, recorder, 5, 20)
    assert recorder.lost == [2, 3, 4]
    assert partition.bridge(9, 7, 7, 0.0) == 7, "7 and 8 are there"
    assert partition.bridge(9, 12, 12, 10.0) is None, "by now they are gone, but 9 is at hand"
    assert recorder.lost == [2, 3, 4, 5, 6, 7, 8]


def test_a_commit_beyond_the_end_is_refused() -> None:
    with pytest.raises(LogUnavailable, match="made anew"):
        Partition(TP, Recorder(6), 0, 5)
