"""Panes of another length, or more partitions, from one start to the next: what is counted is counted once
all the same.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.settings import ProcessorSettings
from processors.spans.signal import span_processor
from schemas import topics
from schemas.records import Commit, Record, TopicPartition
from schemas.tables import Block
from tests.support.examples import examples
from tests.support.span_log import CLIENT, KEEP_ALL, SERVER, T0_S, Span, make_log

TP = TopicPartition(topics.SPANS, 1)
CALLS = 60
COUNTED = {"red_10s": "requests", "red_1m": "requests", "edges_10s": "calls", "ledger": "received"}


def with_panes(pane_s: float, partitions: int = 2) -> ProcessorSettings:
    return ProcessorSettings(
        partitions=partitions, pane=timedelta(seconds=pane_s), lookback=timedelta(seconds=60)
    )


def calls(every_s: float = 0.5, start_s: float | None = None, first_s: float = 0) -> list[Record]:
    """A call from a to b in each record; ``start_s``: when all of them began, instead of when they
    arrived.
    """
    arrivals = []
    for number in range(CALLS):
        at_s = first_s + number * every_s
        began_s = at_s if start_s is None else start_s
        client, server = 2 * number + 1, 2 * number + 2
        spans = [
            Span("a", client, 0, CLIENT, began_s, trace=number + 1),
            Span("b", server, client, SERVER, began_s, trace=number + 1),
        ]
        arrivals.append((at_s, spans))
    return make_log(*arrivals, end_s=first_s + 900)


def store(log: Sequence[Record], runs: Sequence[tuple[int, ProcessorSettings]]) -> list[Block]:
    """What is stored when readers with these settings follow one another, each up to its record; of a token
    the first block only.
    """
    stored: dict[str, Block] = {}
    commit: Commit | None = None
    for stop, given_settings in runs:
        processor = span_processor(TP, given_settings, KEEP_ALL, commit)
        for emit in processor.feed(log[processor.offset or 0 : stop]):
            commit = emit.commit
            for block in emit.blocks:
                stored.setdefault(block.token, block)
    return list(stored.values())


def sums(blocks: Sequence[Block]) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for block in blocks:
        counted[block.table] += (
            sum(block.rows.column(COUNTED[block.table]).to_pylist())
            if block.table in COUNTED
            else block.rows.num_rows
        )
    return {table: counted[table] for table in ("red_10s", "edges_10s", "otel_traces", "ledger")}


EVERYTHING = {"red_10s": 2 * CALLS, "edges_10s": CALLS, "otel_traces": 2 * CALLS, "ledger": 2 * CALLS}
OTHERS = st.builds(with_panes, st.sampled_from([1, 2.5, 5, 5.001, 7, 10, 30]), st.sampled_from([2, 3, 4, 8]))


@pytest.mark.parametrize("stop", [41, 47, 56])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (with_panes(5), with_panes(1)),
        (with_panes(1), with_panes(5)),
        (with_panes(5), with_panes(10)),
        (with_panes(5, 2), with_panes(5, 4)),
        (with_panes(5, 4), with_panes(5, 2)),
    ],
)
def test_a_change_counts_nothing_twice_and_loses_nothing(
    before: ProcessorSettings, after: ProcessorSettings, stop: int
) -> None:
    log = calls()
    assert sums(store(log, [(stop, before), (len(log), after)])) == EVERYTHING


@examples(6)
@given(st.lists(st.tuples(st.integers(0, CALLS), OTHERS), max_size=3), OTHERS)
def test_changes_follow_one_another(
    changes: list[tuple[int, ProcessorSettings]], last: ProcessorSettings
) -> None:
    log = calls()
    runs = [*sorted(changes, key=lambda change: change[0]), (len(log), last)]
    assert sums(store(log, runs)) == EVERYTHING


@pytest.mark.parametrize("pane_s", [8, 17, 60, 70])
def test_rows_of_an_hour_that_is_rolled_up_stay_late_with_longer_panes(pane_s: float) -> None:
    grace_s = int(ProcessorSettings().rollup_grace.total_seconds())
    log = calls(start_s=-30, first_s=grace_s)  # of the hour before T0_S, after it was rolled up
    blocks = store(log, [(20, with_panes(1)), (len(log), with_panes(pane_s))])
    rows = [row for block in blocks if block.table == "red_10s" for row in block.rows.to_pylist()]
    assert all(row["slot"] < T0_S for row in rows)
    assert sum(row["requests"] for row in rows if not row["late"]) <= 2 * 2, (
        "panes that began before the grace had passed"
    )
    minutes = sum(
        sum(block.rows.column("requests").to_pylist()) for block in blocks if block.table == "red_1m"
    )
    assert minutes == sum(row["requests"] for row in rows if row["late"])
