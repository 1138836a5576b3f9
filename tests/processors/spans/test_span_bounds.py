"""What one sender can do to sums and series: durations, times, names that never end, a cluster by label."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1 import trace_pb2

from processors.limits import OTHER
from processors.panes import Emit
from processors.settings import LabelLimits, ProcessorSettings
from processors.spans.signal import span_processor
from schemas import topics
from schemas.records import Record, TopicPartition
from schemas.units import NS_PER_S
from tests.support.examples import examples
from tests.support.span_log import (
    CLIENT,
    KEEP_ALL,
    SERVER,
    T0_S,
    Span,
    make_log,
    payload,
    process,
    proxy,
    rows,
    total,
)

SETTINGS = ProcessorSettings(partitions=1)
HOUR_S = 3_600


def with_times(start_ns: int, end_ns: int) -> bytes:
    """A span of these times beside 99 of 10 ms."""
    data = trace_pb2.TracesData.FromString(payload([Span("a", number) for number in range(1, 101)]))
    odd = data.resource_spans[0].scope_spans[0].spans[0]
    odd.start_time_unix_nano, odd.end_time_unix_nano = start_ns, end_ns
    value: bytes = data.SerializeToString()
    return value


@pytest.mark.parametrize(
    ("start_ns", "end_ns"),
    [
        (0, T0_S * NS_PER_S),
        (T0_S * NS_PER_S + 1, T0_S * NS_PER_S),
        (1, (1 << 63) - 1),
        (T0_S * NS_PER_S, (1 << 64) - 1),
        (T0_S * NS_PER_S - 25 * HOUR_S * NS_PER_S, T0_S * NS_PER_S),
    ],
    ids=["no start", "start after end", "2^63 ns", "end of time", "25 hours"],
)
def test_an_unknown_duration_is_in_no_mean_and_no_quantile_but_is_counted(start_ns: int, end_ns: int) -> None:
    value = with_times(start_ns, end_ns)
    log = [Record(0, T0_S * NS_PER_S, value, len(value)), Record(1, (T0_S + 600) * NS_PER_S, b"", 0)]
    emits = process(log, SETTINGS)
    found = rows(emits, "red_10s")
    timed = sum(count for row in found for _, count in row["duration_histogram"])  # type: ignore[attr-defined]
    assert total(emits, "red_10s", "requests") == 100
    assert timed == 99
    assert total(emits, "red_10s", "duration_ns_sum") == 99 * 10_000_000
    assert max(row["duration_ns_max"] for row in found) == 10_000_000  # type: ignore[type-var]


def test_an_unknown_duration_is_in_no_histogram_of_an_edge() -> None:
    log = make_log((0, [Span("a", 1, kind=CLIENT), Span("b", 2, 1, kind=SERVER)]))
    data = trace_pb2.TracesData.FromString(log[0].payload)
    for resource in data.resource_spans:
        resource.scope_spans[0].spans[0].start_time_unix_nano = 0
    value = data.SerializeToString()
    (row,) = rows(process([replace(log[0], payload=value, size=len(value)), log[1]], SETTINGS), "edges_10s")
    assert (row["calls"], row["client_histogram"], row["server_histogram"]) == (1, [], [])


FLOOD = ProcessorSettings(
    partitions=1,
    pane=timedelta(seconds=1),
    lookback=timedelta(seconds=4),
    wait=1,
    labels=LabelLimits(new_services=5),
)


def flood(seconds: int, names: int) -> list[Record]:
    """Each second the same 3 services, busy, and ``names`` that never come again."""
    arrivals = []
    for second in range(seconds):
        steady = [Span(f"steady-{n % 3}", 1_000 * second + n + 1, trace=second + 1) for n in range(9)]
        once = [
            Span(f"once-{second}-{n:03}", 1_000 * second + 100 + n, trace=second + 1) for n in range(names)
        ]
        edge = [
            Span(f"child-{second}-{n:03}", 1_000 * second + 500 + n, 1_000 * second + 1, trace=second + 1)
            for n in range(names)
        ]
        arrivals.append((float(second), [*steady, *once, *edge]))
    return make_log(*arrivals, end_s=seconds + 20)


def names_of(emits: Sequence[Emit], table: str, column: str) -> set[str]:
    return {str(row[column]) for row in rows(emits, table)}


def test_services_that_never_come_again_are_few_once_a_partition_has_a_past() -> None:
    emits = process(flood(10, 100), FLOOD)
    for table, column in (("red_10s", "service"), ("edges_10s", "server_service")):
        found = names_of(emits, table, column)
        for second in range(2, 10):
            of_second = {name for name in found if f"-{second}-" in name}
            assert len(of_second) <= 5, (table, second)
    assert {"steady-0", "steady-1", "steady-2", OTHER} <= names_of(emits, "red_10s", "service")
    assert total(emits, "red_10s", "requests") == total(emits, "ledger", "kept") == 10 * 209


def test_a_service_that_stays_has_its_name_from_its_second_pane_on() -> None:
    arrivals = [(float(second), [Span("old", second + 1, trace=second + 1)]) for second in range(4)]
    for second in range(4, 7):
        spans = [Span(f"new-{n:03}", 1_000 * second + n, trace=1_000 * second + n + 1) for n in range(20)]
        arrivals.append((float(second), spans))
    emits = process(make_log(*arrivals, end_s=30), FLOOD)
    named = [row for row in rows(emits, "red_10s") if str(row["service"]).startswith("new")]
    assert sum(row["requests"] for row in named) == 5 + 20 + 20  # type: ignore[misc]


CROWDED = FLOOD.model_copy(update={"labels": LabelLimits(services=12, new_services=2)})


def expected_names(seconds: Sequence[frozenset[int]]) -> list[frozenset[int]]:
    """Which names keep theirs in each pane, by the rule, one name after the other."""
    shown = list[frozenset[int]]()
    for pane, own in enumerate(seconds):
        past = [(number, seconds[number]) for number in range(max(pane - 4, 0), pane) if seconds[number]]
        if not any(number <= pane - 2 for number, _ in past):
            shown.append(own)
            continue
        crowded = len(own.union(*(names for _, names in past))) > 12
        times = {name: sum(name in names for _, names in past) for name in own}
        new = {name for name in own if times[name] < (2 if crowded else 1)}
        shown.append((own - new) | frozenset(sorted(new)[:2]))
    return shown


@examples(25)
@given(st.lists(st.frozensets(st.integers(0, 30), max_size=12), min_size=4, max_size=12))
def test_names_keep_theirs_by_how_many_panes_of_the_lookback_have_them(seconds: list[frozenset[int]]) -> None:
    arrivals = [
        (
            float(second),
            [Span(f"n-{name:02}", 100 * second + name + 1, trace=second + 1) for name in sorted(names)],
        )
        for second, names in enumerate(seconds)
    ]
    emits = process(make_log(*arrivals, end_s=len(seconds) + 20), CROWDED)
    found: dict[int, set[int]] = {}
    for block in (block for emit in emits for block in emit.blocks if block.table == "red_10s"):
        names = {str(row["service"]) for row in block.rows.to_pylist()} - {OTHER}
        found[block.pane - T0_S] = {int(name[2:]) for name in names}
    expected = expected_names(seconds)
    assert found == {second: names for second, names in enumerate(expected) if seconds[second]}


def test_names_that_last_two_panes_are_as_few_as_those_that_come_once() -> None:
    """Each second 40 services that come now and in the next second, and 3 that stay: in an hour they would be
    half of all that a pane may have.
    """
    limited = FLOOD.model_copy(update={"labels": LabelLimits(services=90, new_services=5)})
    arrivals = []
    for second in range(12):
        fresh = [f"twice-{made:02}-{n}" for made in (second - 1, second) for n in range(40)]
        names = [*fresh, "steady-0", "steady-1", "steady-2"]
        spans = [
            Span(name, 1_000 * second + n + 1, trace=1_000 * second + n + 1) for n, name in enumerate(names)
        ]
        arrivals.append((float(second), spans))
    emits = process(make_log(*arrivals, end_s=40), limited)
    by_pane: dict[int, set[str]] = {}
    for block in (block for emit in emits for block in emit.blocks if block.table == "red_10s"):
        by_pane[block.pane - T0_S] = {str(row["service"]) for row in block.rows.to_pylist()}
    for second in range(3, 12):
        assert len({name for name in by_pane[second] if name.startswith("twice")}) == 5
        assert {"steady-0", "steady-1", "steady-2", OTHER} <= by_pane[second]
    assert total(emits, "red_10s", "requests") == 12 * 83


REDIS = {"db.system": "redis"}


@pytest.mark.parametrize("kind", ["database", "upstream cluster"])
def test_ends_that_send_nothing_and_never_come_again_are_few_once_a_partition_has_a_past(kind: str) -> None:
    arrivals = []
    for second in range(8):
        calls = []
        for number, name in enumerate(["steady", *(f"once-{second}-{number}" for number in range(40))]):
            id_ = 1_000 * second + number + 1
            if kind == "database":
                calls.append(Span("a", id_, trace=id_, kind=CLIENT, attributes={**REDIS, "db.name": name}))
            else:
                calls.append(replace(proxy("a", id_, kind=CLIENT, flags="NR", cluster=name), trace=id_))
        arrivals.append((float(second), calls))
    emits = process(make_log(*arrivals, end_s=30), FLOOD)
    for block in (block for emit in emits for block in emit.blocks if block.table == "edges_10s"):
        found = block.rows.to_pylist()
        assert sum(row["calls"] + row["unsent"] for row in found) == 41
        if block.pane - T0_S >= 2:
            names = {row["server_service"] for row in found}
            assert {"redis:steady" if kind == "database" else "steady", OTHER} <= names
            assert len(names) == 7


def test_versions_that_never_come_again_are_other_of_their_service() -> None:
    arrivals = []
    for second in range(8):
        spans = [
            Span("a", 1_000 * second + n + 1, trace=1_000 * second + n + 1, version=f"{second}.{n}")
            for n in range(30)
        ]
        arrivals.append(
            (float(second), [*spans, Span("b", 1_000 * second + 99, trace=second + 1, version="v1")])
        )
    emits = process(make_log(*arrivals, end_s=30), FLOOD)
    for block in (block for emit in emits for block in emit.blocks if block.table == "red_10s"):
        found = block.rows.to_pylist()
        versions = {row["version"] for row in found if row["service"] == "a"}
        assert sum(row["requests"] for row in found if row["service"] == "a") == 30, (
            "each counts for its service"
        )
        assert {row["version"] for row in found if row["service"] == "b"} == {"v1"}
        if block.pane - T0_S >= 2:
            assert len(versions) == 6
            assert OTHER in versions


def test_which_names_are_new_is_a_function_of_the_log() -> None:
    log = flood(10, 20)
    whole = process(log, FLOOD)
    blocks = {block.token: block.rows for emit in whole for block in emit.blocks}
    for emit in whole[:-1]:
        for again in process(log, FLOOD, commit=emit.commit):
            for block in again.blocks:
                assert blocks[block.token].equals(block.rows), block.token


def test_a_records_label_is_the_cluster_of_resources_that_name_none() -> None:
    log = make_log((0, [Span("a", 1)]), (0.5, [Span("a", 2)]))
    log[1] = replace(log[1], labels={"source_cluster": "west"})
    found = rows(process(log, SETTINGS), "red_10s")
    assert sorted(str(row["cluster"]) for row in found) == ["", "west"]


def test_raising_the_grace_loses_no_late_row() -> None:
    """An hour is rolled up at 15 min past; then the grace becomes an hour. What comes 20 min past must go to
    every level, as nobody rolls that hour up again.
    """
    before = SETTINGS.model_copy(update={"rollup_grace": timedelta(minutes=15)})
    after = SETTINGS.model_copy(update={"rollup_grace": timedelta(hours=1)})
    late = Span("a", 99, trace=99, start_s=-60)
    minutes = [
        (60.0 * minute, [Span("a", minute + 1, trace=minute + 1, start_s=60.0 * minute)])
        for minute in range(20)
    ]
    log = make_log(*minutes, (20 * 60.0, [late]), (20 * 60.0 + 5, []), end_s=21 * 60)
    tp = TopicPartition(topics.SPANS, 0)
    first = span_processor(tp, before, KEEP_ALL)
    emits = first.feed(log[:20])
    second = span_processor(tp, after, KEEP_ALL, emits[-1].commit)
    again = second.feed([record for record in log if record.offset >= (second.offset or 0)])
    found = [row for row in rows(again, "red_10s") if row["late"]]
    assert len(found) == 1
    assert total(again, "red_1m", "requests") == total(again, "red_1h", "requests") == 1
