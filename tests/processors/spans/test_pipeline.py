"""The core's invariants: blocks are a function of the log (2), commits lie behind the lookback (4), time is
the log's (5), copies (8).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from processors.panes import Emit
from processors.settings import HeadSampling, ProcessorSettings
from processors.spans.sampling.options import BudgetOptions, ProbabilisticOptions
from processors.spans.sampling.policies import Budget, Error, Probabilistic
from processors.spans.sampling.settings import SamplingSettings
from processors.spans.signal import span_processor
from schemas import topics
from schemas.records import Commit, Record, TopicPartition
from schemas.tables import SCHEMAS
from tests.support.examples import examples
from tests.support.span_log import (
    CLIENT,
    CONSUMER,
    INTERNAL,
    KEEP_ALL,
    PRODUCER,
    SERVER,
    T0_S,
    Span,
    blocks,
    make_log,
    payload,
    process,
    proxy,
    read_requests,
    replay,
    rows,
    total,
)

CAPTURE = Path(__file__).parents[2] / "data" / "envoy" / "traces.bin.gz"
SHORT = ProcessorSettings(partitions=1, pane=timedelta(seconds=1), lookback=timedelta(seconds=4))
MIXED = SamplingSettings(
    policies=(
        Error(name="errors", type="error"),
        Probabilistic(
            name="half", type="probabilistic", probabilistic=ProbabilisticOptions(sampling_percentage=50)
        ),
        Budget(name="few", type="budget", budget=BudgetOptions(traces_per_second=1)),
    )
)


def process_with_restarts(
    log: Sequence[Record],
    given_settings: ProcessorSettings,
    sampling: SamplingSettings,
    polls: Sequence[int],
    stops: Sequence[int],
) -> list[Emit]:
    """Feed portions of ``polls`` records; at each of ``stops`` (numbers of polls) die before or after the
    commit, and begin again there.
    """
    tp = TopicPartition(topics.SPANS, 0)
    emits: list[Emit] = []
    commit: Commit | None = None
    processor = span_processor(tp, given_settings, sampling)
    at, poll = 0, 0
    pending = set(stops)
    while at < len(log):
        size = polls[poll % len(polls)]
        given_emits = processor.feed(log[at : at + size])
        emits += given_emits
        at += size
        poll += 1
        if poll in pending:
            pending.discard(poll)
            committed = given_emits[
                : len(given_emits) // 2 + poll % 2
            ]  # its blocks were written, not every commit was
            commit = committed[-1].commit if committed else commit
            processor = span_processor(tp, given_settings, sampling, commit)
            at = processor.offset or 0
        elif given_emits:
            commit = given_emits[-1].commit
    return emits


@st.composite
def logs(draw: st.DrawFn) -> list[Record]:
    """Spans of a few traces with errors, copies, refused calls, queues and hostile times; records at random
    times, ticks between.
    """
    flags = st.sampled_from(["-", "UO", "NR", "UT,URX"])
    spans = []
    for trace in range(1, draw(st.integers(1, 6)) + 1):
        for number in range(draw(st.integers(1, 6))):
            attributes = {
                "response_flags": draw(flags),
                "upstream_cluster.name": draw(st.sampled_from(["x", "y"])),
            }
            attributes |= draw(
                st.sampled_from(
                    [
                        {},
                        {"component": "proxy"},
                        {"messaging.system": "q"},
                        {"db.system": "d"},
                        {"error": "true"},
                    ]
                )
            )
            spans.append(
                Span(
                    draw(st.sampled_from(["a/1", "a/2", "b/1/pod", "c"])),
                    trace * 100 + number,
                    trace * 100 + draw(st.integers(0, number - 1)) if number else 0,
                    draw(st.sampled_from([INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER])),
                    draw(st.sampled_from([0, 0, 0, 1, 2, -5000, 90_000, -(10**6)])),
                    draw(st.sampled_from([0, 1, 5000])),
                    trace + (trace << 70),
                    draw(st.sampled_from(["op", "other-op"])),
                    attributes=attributes,
                )
            )
    copies = draw(st.lists(st.sampled_from(spans), max_size=6))
    for span in draw(st.lists(st.sampled_from(spans), max_size=4)):  # of equal id, or of the same span
        copies.append(draw(st.sampled_from([
            replace(span, service=draw(st.sampled_from(["b/1/pod", "c"]))),
            replace(span, kind=draw(st.sampled_from([SERVER, CLIENT])), parent=draw(st.sampled_from([0, span.parent]))),
            replace(span, duration_ms=draw(st.sampled_from([0, 7])), status=draw(st.sampled_from([0, 2]))),
        ])))  # fmt: skip
    arrivals = [(draw(st.integers(0, 24)) / 2, span) for span in [*spans, *copies]]
    by_time = sorted(arrivals, key=lambda arrival: arrival[0])
    records = make_log(
        *((at_s, [span]) for at_s, span in by_time),
        *((at_s, []) for at_s in draw(st.lists(st.integers(12, 60), max_size=4))),
    )
    return [
        replace(record, offset=number)
        for number, record in enumerate(sorted(records, key=lambda record: record.append_time_ns))
    ]


@examples(6)
@given(logs(), st.lists(st.integers(1, 9), min_size=1, max_size=5), st.lists(st.integers(1, 20), max_size=5))
def test_blocks_are_a_function_of_the_log(log: list[Record], polls: list[int], stops: list[int]) -> None:
    whole = blocks(process(log, SHORT, MIXED))
    again = blocks(process_with_restarts(log, SHORT, MIXED, polls, stops))
    assert again.keys() == whole.keys()
    assert all(again[token].equals(found) for token, found in whole.items())


@pytest.mark.parametrize("distance", [4, 5, 6, 7])
def test_copies_and_parents_at_any_distance_give_equal_blocks_from_any_restart(distance: int) -> None:
    """Around the edge of the lookback (4 panes) and of lookback and wait together, where a wider window would
    show.
    """

    def at(second: int) -> list[Span]:
        new = proxy(
            "a", second, trace=second, kind=CLIENT, cluster="c", flags="UO" if second % 3 == 0 else "-"
        )
        earlier = second - distance
        copy = [replace(new, id=earlier, trace=earlier, start_s=0)] if earlier > 0 else []
        child = [proxy("b", 100 + second, earlier, trace=earlier)] if earlier > 0 else []
        early_child = [proxy("c", 200 + second, second + distance, trace=second + distance)]
        return [new, *copy, *child, *early_child]

    log = make_log(*((second, at(second)) for second in range(1, 15)))
    whole = blocks(process(log, SHORT, MIXED))
    for stop in range(7, len(log), 3):
        again = blocks(process_with_restarts(log, SHORT, MIXED, [1], [stop]))
        assert again.keys() == whole.keys()
        assert all(again[token].equals(found) for token, found in whole.items()), stop


class Version(NamedTuple):
    """A span as one record has it."""

    pane: int
    finished: bool
    error: bool


def counted(log: Sequence[Record], given_settings: ProcessorSettings) -> tuple[int, int, int, int]:
    """Spans received, distinct, that may be stored, and failed, by the rules, record by record."""
    versions: dict[tuple[object, ...], list[Version]] = defaultdict(list)
    for record in log:
        for resource_spans in TracesData.FromString(record.payload).resource_spans:
            ((span,),) = [each.spans for each in resource_spans.scope_spans]
            resource = {each.key: each.value.string_value for each in resource_spans.resource.attributes}
            attributes = {each.key: each.value.string_value for each in span.attributes}
            sender = (
                resource["service.name"],
                resource.get("service.instance.id") or resource.get("k8s.pod.name"),
            )
            side = (span.kind, sender, attributes.get("component"), span.start_time_unix_nano)
            versions[span.trace_id, span.span_id, *side].append(
                Version(
                    (record.append_time_ns - T0_S * 10**9) // given_settings.pane_ns,
                    span.end_time_unix_nano > span.start_time_unix_nano,
                    span.status.code == 2 or attributes.get("error") == "true",
                )
            )
    received = sum(map(len, versions.values()))
    stored = errors = 0
    for of_span in versions.values():
        pane = of_span[0].pane
        here = [each for each in of_span if each.pane == pane]
        first = next((each for each in here if each.finished), here[0])
        end = None if first.finished else next((each for each in of_span if each.finished), None)
        stored += 2 if end and end.pane > pane + given_settings.wait else 1
        errors += first.error or bool(end and end.error)
    return received, len(versions), stored, errors


@examples(8)
@given(logs())
def test_every_span_counts_once_and_the_ledger_balances(log: list[Record]) -> None:
    wide = SHORT.model_copy(update={"lookback": timedelta(seconds=60)})
    emits = process(log, wide, MIXED)
    received, spans, stored, errors = counted(log, wide)
    assert total(emits, "ledger", "received") == received
    assert total(emits, "ledger", "duplicate") == received - stored
    assert total(emits, "red_10s", "requests") == spans
    assert total(emits, "red_10s", "errors") == errors
    assert (
        total(emits, "ledger", "kept") == len(rows(emits, "otel_traces")) == total(emits, "ledger", "stored")
    )
    for row in rows(emits, "ledger"):
        assert row["received"] == row["rejected"] + row["duplicate"] + row["kept"] + row["dropped"]  # type: ignore[operator]  # counts
    late = sum(row["requests"] for row in rows(emits, "red_10s") if row["late"])  # type: ignore[misc]  # a count
    assert (
        late
        == total(emits, "red_1m", "requests")
        == total(emits, "red_1h", "requests")
        == total(emits, "ledger", "late")
    )


def test_capture_in_random_polls_with_restarts() -> None:
    (log,) = replay(read_requests(CAPTURE), 1, 62)
    given_settings = ProcessorSettings(partitions=1, lookback=timedelta(seconds=30))
    whole = blocks(process(log, given_settings, MIXED))
    again = blocks(process_with_restarts(log, given_settings, MIXED, [7, 50, 1, 23], [5, 9, 14, 20]))
    assert again.keys() == whole.keys()
    assert all(again[token].equals(found) for token, found in whole.items())


def test_every_request_sent_twice_changes_nothing() -> None:
    requests = read_requests(CAPTURE)
    twice = [request for pair in zip(requests, requests, strict=True) for request in pair]
    given_settings = ProcessorSettings(partitions=1)
    (once_log,), (twice_log,) = replay(requests, 1, 62), replay(twice, 1, 62)
    once, doubled = process(once_log, given_settings), process(twice_log, given_settings)
    for table in ("red_10s", "edges_10s", "otel_traces"):
        assert sorted(map(repr, rows(doubled, table))) == sorted(map(repr, rows(once, table)))
    assert total(doubled, "ledger", "duplicate") == 2195
    assert total(doubled, "ledger", "kept") == 2195


def test_blocks_have_the_tables_schemas() -> None:
    log = make_log((0, [Span("a", 1, kind=CLIENT, start_s=-4000), Span("b", 2, 1, start_s=-4000)]))
    found = blocks(process(log, ProcessorSettings(partitions=1)))
    tables = {token.split(":")[0]: rows_ for token, rows_ in found.items()}
    assert {*tables} == {
        "red_10s", "red_1m", "red_1h", "edges_10s", "edges_1m", "edges_1h", "otel_traces", "otel_traces_trace_id_ts", "ledger"
    }  # fmt: skip
    for table, rows_ in tables.items():
        assert rows_.schema.equals(SCHEMAS[table]), table
        rows_.validate(full=True)


def test_a_malformed_record_is_set_aside_and_the_rest_of_its_pane_counts() -> None:
    log = make_log((0, [Span("a", 1)]), (0.5, []), (0.6, [Span("a", 2)]))
    log[1] = replace(log[1], payload=b"\xff\xff\xff", size=3)
    emits = process(log, ProcessorSettings(partitions=1))
    assert [letter.offset for emit in emits for letter in emit.dead_letters] == [1]
    (row,) = rows(emits, "ledger")
    assert (row["received"], row["rejected"], row["kept"]) == (3, 1, 2)
    assert len(rows(emits, "otel_traces")) == 2


def test_records_over_a_panes_limit_are_set_aside_with_the_count_of_their_spans() -> None:
    big = [Span("a", n, attributes={"x": "x" * 500_000}) for n in (1, 2)]
    log = make_log((0, [big[0]]), (0.5, [big[1], Span("a", 3)]), (0.6, [Span("a", 4)]), (9, [Span("a", 5)]))
    emits = process(log, ProcessorSettings(partitions=1, pane_bytes=1 << 20))
    assert [letter for emit in emits for letter in emit.dead_letters] == []
    emits = process(
        make_log((0, big), (0.5, [big[1], Span("a", 3)]), (9, [Span("a", 5)])),
        ProcessorSettings(partitions=1, pane_bytes=1 << 20),
    )
    assert [letter.offset for emit in emits for letter in emit.dead_letters] == [1]
    assert [(row["received"], row["rejected"], row["kept"]) for row in rows(emits, "ledger")] == [
        (4, 2, 2),
        (1, 0, 1),
    ]


def test_ticks_give_no_blocks_and_counts_in_headers_do() -> None:
    log = make_log((0, []), (6, []), (12, []))
    log[1] = replace(log[1], headers={"rejected": 2, "refused": 1})
    emits = process(log, ProcessorSettings(partitions=1))
    (row,) = rows(emits, "ledger")
    assert (row["received"], row["rejected"], row["refused"]) == (2, 2, 1)
    assert [block.table for emit in emits for block in emit.blocks] == ["ledger"]
    assert emits[-1].commit.offset == len(log) - 1


def test_lost_records_are_in_the_ledger() -> None:
    processor = span_processor(TopicPartition(topics.SPANS, 0), ProcessorSettings(partitions=1), KEEP_ALL)
    processor.gap(3, 8)
    value = payload([Span("a", 1)])
    emits = processor.feed(
        [Record(8, T0_S * 10**9, value, len(value)), Record(9, (T0_S + 900) * 10**9, b"", 0)]
    )
    assert [row["lost"] for row in rows(emits, "ledger")] == [5]


def test_what_is_held_does_not_grow() -> None:
    processor = span_processor(TopicPartition(topics.SPANS, 0), SHORT, KEEP_ALL)
    for number in range(40):
        value = payload([Span("a", number + 1, trace=number + 1)])
        processor.feed([Record(number, (T0_S + number) * 10**9, value, len(value))])
    assert len(processor._seen) <= SHORT.lookback_panes + SHORT.wait + 2  # the bound is what is tested
    assert len(processor._undecided) <= SHORT.wait + 1


def test_a_partition_that_the_settings_do_not_have_is_an_error() -> None:
    with pytest.raises(ValueError, match="has 1 partitions by the settings"):
        span_processor(TopicPartition(topics.SPANS, 1), ProcessorSettings(partitions=1), KEEP_ALL)


def test_a_giant_trace_is_stored_up_to_its_limit_and_counted_whole() -> None:
    spans = [Span("a", number, trace=1, start_s=-number) for number in range(1, 31)] + [
        Span("b", 100 + number, trace=2) for number in range(5)
    ]
    emits = process(make_log((0, spans)), SHORT, KEEP_ALL.model_copy(update={"trace_spans": 10}))
    stored = rows(emits, "otel_traces")
    assert sorted(str(row["SpanId"]) for row in stored if row["ServiceName"] == "a") == [
        f"{number:016x}" for number in range(21, 31)
    ]
    assert sum(row["ServiceName"] == "b" for row in stored) == 5
    assert (
        total(emits, "ledger", "kept"),
        total(emits, "ledger", "dropped"),
        total(emits, "ledger", "stored"),
    ) == (15, 20, 15)
    assert total(emits, "red_10s", "requests") == 35


def test_what_was_sampled_before_is_estimated_and_on_the_spans_that_are_kept() -> None:
    spans = [
        Span("a", 1, trace=2**55, trace_state="ot=th:8"),
        Span("a", 2, trace=2**55 + 1),
        Span("b", 3, trace=2**55 + 2, trace_state="ot=th:8"),
        Span("b", 4, trace=2**55 + 3, status=2),
    ]
    rules = (HeadSampling(service="b", probability=0.08),)
    emits = process(make_log((0, spans)), SHORT.model_copy(update={"head_sampling": rules}))
    estimated = {
        str(row["service"]): (row["requests"], row["requests_estimated"], row["errors_estimated"])
        for row in rows(emits, "red_10s")
        if not row["errors"]
    }
    assert estimated == {"a": (2, 3.0, 0.0), "b": (1, 12.5, 0.0)}
    stored = [
        (row["ServiceName"], row["SampleRate"], row["SampleWeight"]) for row in rows(emits, "otel_traces")
    ]
    assert sorted(map(str, stored)) == sorted(
        map(str, [("a", 2.0, 2), ("a", 1.0, 1), ("b", 12.5, 13), ("b", 12.5, 13)])
    )
