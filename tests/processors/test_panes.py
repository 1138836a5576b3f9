import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from processors.panes import PaneClock, Panes, Step
from processors.readers.partition import watermark_of
from schemas.records import Commit, Record, TopicPartition
from schemas.units import NS_PER_S
from tests.support.examples import examples

CLOCK = PaneClock(5 * NS_PER_S, NS_PER_S)
MIB = 1 << 20


def record(offset: int, at_s: float, value: bytes = b"x", **headers: int) -> Record:
    return Record(offset, int(at_s * NS_PER_S), value, len(value), headers=headers)


def panes(wait: int = 2, lookback: int = 4, limit: int = MIB, commit: Commit | None = None) -> Panes:
    return Panes(CLOCK, wait, lookback, limit, commit, count=len)


def feed(cutter: Panes, records: list[Record]) -> list[Step]:
    return [step for one in records for step in cutter.add(one)]


def test_partitions_are_staggered_and_a_partition_too_many_is_an_error() -> None:
    clocks = [PaneClock.of(TopicPartition("otlp_spans", number), 4, 5 * NS_PER_S) for number in range(4)]
    assert [clock.start_ns(7) for clock in clocks] == [
        35 * NS_PER_S + number * 1_250_000_000 for number in range(4)
    ]
    assert all(
        clock.pane_at(clock.start_ns(7)) == 7 and clock.pane_at(clock.start_ns(7) - 1) == 6
        for clock in clocks
    )
    with pytest.raises(ValueError, match="has 4 partitions"):
        PaneClock.of(TopicPartition("otlp_spans", 4), 4, 5 * NS_PER_S)


def test_a_pane_closes_with_the_first_record_of_a_later_one_and_is_decided_after_the_wait() -> None:
    steps = feed(panes(), [record(0, 6), record(1, 10.9), record(2, 11), record(3, 16), record(4, 21)])
    assert [(step.closed.number, [one.offset for one in step.closed.records]) for step in steps] == [
        (1, [0, 1]),
        (2, [2]),
        (3, [3]),
    ]
    assert [step.decided for step in steps] == [(), (), (1,)]
    assert all(step.emit_closed for step in steps)


def test_ticks_close_panes_and_their_headers_count() -> None:
    (step,) = feed(
        panes(),
        [record(0, 6, b"", rejected=3, refused=2), record(1, 8, b"ab", rejected=1), record(2, 11, b"")],
    )
    assert (step.closed.rejected, step.closed.refused, step.closed.bytes) == (4, 2, 2)
    assert [one.offset for one in step.closed.records] == [1]


def test_hours_of_silence_are_one_step() -> None:
    steps = feed(panes(), [record(0, 6), record(1, 11), record(2, 4_000_001), record(3, 4_000_006)])
    assert [step.decided for step in steps] == [(), (1, 2), ()]
    assert steps[1].commit.offset == 2


def test_records_of_equal_time_and_times_that_go_back_stay_in_the_newest_pane() -> None:
    steps = feed(panes(), [record(0, 6), record(1, 11), record(2, 11), record(3, 7), record(4, 16)])
    assert [[one.offset for one in step.closed.records] for step in steps] == [[0], [1, 2, 3]]


def test_the_commit_is_the_lookback_before_the_next_pane() -> None:
    steps = feed(panes(wait=1, lookback=2), [record(pane, 6 + 5 * pane) for pane in range(8)])
    last = steps[-1]  # closed pane 7, the record of pane 8 is offset 7; pane 6 is decided, 7 is next
    assert last.decided == (6,)
    assert last.keep_from == 5
    assert last.commit.offset == 4
    assert last.commit.metadata.startswith("next=7 ")


@given(st.lists(st.integers(0, 12), min_size=1, max_size=40), st.data())
def test_a_restart_emits_and_decides_what_one_reader_would(gaps_s: list[int], data: st.DataObject) -> None:
    at_s, log = 1000, []
    for offset, gap in enumerate(gaps_s):
        at_s += gap
        log.append(record(offset, at_s))

    def settled(steps: list[Step]) -> tuple[set[tuple[int, int]], set[int]]:
        return {(step.closed.number, len(step.closed.records)) for step in steps if step.emit_closed}, {
            pane for step in steps for pane in step.decided
        }

    whole = feed(panes(), log)
    stop = data.draw(st.integers(0, len(log)))
    before = feed(panes(), log[:stop])
    commit = before[-1].commit if before else None
    resumed = panes(commit=commit)
    after = feed(resumed, log[resumed.offset or 0 :])
    emitted, decided = settled(whole)
    assert {*settled(before)[0], *settled(after)[0]} == emitted
    assert {*settled(before)[1], *settled(after)[1]} == decided
    assert settled(before)[1].isdisjoint(settled(after)[1])


def test_a_commit_without_metadata_is_the_logs_start() -> None:
    steps = feed(panes(commit=Commit(3, "")), [record(3, 6), record(4, 11)])
    assert [step.emit_closed for step in steps] == [True]


def test_a_foreign_commit_is_an_error() -> None:
    with pytest.raises(ValueError, match="not meshflow's"):
        panes(commit=Commit(3, "kafka-consumer"))


def test_another_pane_length_reads_the_lookback_and_decides_what_was_not_decided() -> None:
    log = [record(pane, 6 + 5 * pane) for pane in range(8)]
    commit = feed(panes(), log)[-1].commit
    longer = Panes(PaneClock(10 * NS_PER_S, 0), 2, 4, MIB, commit)
    assert longer.offset == commit.offset == 1
    steps = feed(longer, [*log[1:], record(8, 1000)])
    assert [one.offset for step in steps if not step.emit_closed for one in step.closed.records] == [
        1,
        2,
        3,
        4,
    ]
    first_undecided = 5  # pane 8 is open and waits for 6 and 7
    assert [one.offset for step in steps if step.emit_closed for one in step.closed.records] == [
        first_undecided,
        6,
        7,
    ]


CLOCKS = st.builds(
    PaneClock,
    st.integers(1, 20).map(lambda s: s * NS_PER_S),
    st.integers(0, 4).map(lambda s: s * NS_PER_S // 5),
)


@examples(300)
@example(
    gaps_s=[0] * 16 + [1, 3, 12], changes=[(19, PaneClock(NS_PER_S, 0))]
)  # a lookback that is longer than the new one
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 40), CLOCKS), max_size=4),
)
def test_each_record_counts_once_however_panes_change(
    gaps_s: list[int], changes: list[tuple[int, PaneClock]]
) -> None:
    log = [record(offset, 1000 + sum(gaps_s[: offset + 1])) for offset in range(len(gaps_s))]
    log.append(record(len(log), 2_000 + sum(gaps_s), b""))  # a tick that settles everything
    decided: list[int] = []
    clock, commit, watermark_ns = CLOCK, None, 0
    for stop, following in [*sorted(changes, key=lambda change: change[0]), (len(log), CLOCK)]:
        cutter = Panes(clock, 2, 4, MIB, commit)
        held: dict[int, list[int]] = {}
        for one in log[cutter.offset or 0 : stop]:
            settles = cutter.may_settle(one)
            for step in cutter.add(one):
                assert settles or not (step.emit_closed or step.decided), "the reader of Kafka drops it"
                offsets = [each.offset for each in step.closed.records]
                if step.emit_closed:
                    held[step.closed.number] = offsets
                decided += [offset for pane in step.decided for offset in held[pane]]
                commit = step.commit
                assert watermark_of(commit).stored_until_ns >= watermark_ns
                watermark_ns = watermark_of(commit).stored_until_ns
        clock = following
    assert decided == list(range(len(gaps_s)))


def test_lost_records_count_in_the_pane_that_comes_after_them_but_not_when_they_were_emitted() -> None:
    fresh = panes()
    fresh.gap(10, 15)
    assert feed(fresh, [record(15, 6), record(16, 11)])[0].closed.lost == 5
    commit = feed(panes(), [record(pane, 6 + 5 * pane) for pane in range(8)])[-1].commit
    resumed = panes(commit=commit)
    resumed.gap(commit.offset, 7)
    assert (
        feed(resumed, [record(7, 41), record(8, 46)])[0].closed.lost == 2
    )  # 5 and 6; what came before was emitted


def test_a_pane_over_the_limit_sets_the_rest_aside_and_holds_no_payload_of_it() -> None:
    (step,) = feed(panes(limit=10), [record(0, 6, b"x" * 8), record(1, 7, b"x" * 3), record(2, 11)])
    assert [one.offset for one in step.closed.records] == [0]
    assert [(one.offset, one.payload) for one in step.closed.surplus] == [(1, b"")]
    assert (step.closed.surplus_items, step.closed.bytes) == (3, 11)


def test_one_record_is_always_taken() -> None:
    (step,) = feed(panes(limit=10), [record(0, 6, b"x" * 80), record(1, 11)])
    assert [one.unpack() for one in step.closed.records] == [b"x" * 80]


def test_payloads_are_held_packed() -> None:
    (step,) = feed(panes(), [record(0, 6, b"x" * 10_000), record(1, 11)])
    (held,) = step.closed.records
    assert len(held.payload) < 200
    assert held.unpack() == b"x" * 10_000
