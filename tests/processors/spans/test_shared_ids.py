"""A copy is the same span, not the same id: client and server of a call, sidecar and app, forked processes;
and a span that came unfinished and came again with its end.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from processors.panes import Emit
from processors.settings import ProcessorSettings
from processors.spans.sampling.options import BudgetOptions, SpanCountOptions
from processors.spans.sampling.policies import Budget, SpanCount
from processors.spans.sampling.settings import SamplingSettings
from tests.support.span_log import (
    CLIENT,
    CONSUMER,
    INTERNAL,
    PRODUCER,
    SERVER,
    Span,
    edge_sums,
    make_log,
    process,
    proxy,
    rows,
    total,
)

ONE = ProcessorSettings(partitions=1)
SECONDS = ProcessorSettings(partitions=1, pane=timedelta(seconds=1), lookback=timedelta(seconds=10))

ROOT = Span("shop", 1, name="GET /")
CALL = Span("shop", 2, 1, CLIENT, duration_ms=20, name="call")
HANDLE = Span("stock", 2, 1, SERVER, duration_ms=15, name="handle", status=2)


def red(emits: Sequence[Emit]) -> dict[tuple[object, object], tuple[int, int, int]]:
    """(service, kind) -> requests, errors, spans of known duration."""
    sums: dict[tuple[object, object], tuple[int, int, int]] = {}
    for row in rows(emits, "red_10s"):
        timed = sum(count for _, count in row["duration_histogram"])  # type: ignore[attr-defined]  # a map
        before = sums.get((row["service"], row["kind"]), (0, 0, 0))
        now = (row["requests"], row["errors"], timed)
        sums[row["service"], row["kind"]] = tuple(a + b for a, b in zip(before, now, strict=True))  # type: ignore[operator, assignment]  # counts
    return sums


def edge(emits: Sequence[Emit], client: str, server: str) -> dict[str, object]:
    (found,) = (
        row
        for row in rows(emits, "edges_10s")
        if (row["client_service"], row["server_service"]) == (client, server)
    )
    return found


def stored(emits: Sequence[Emit]) -> list[tuple[object, object]]:
    return sorted((row["ServiceName"], row["SpanName"]) for row in rows(emits, "otel_traces"))


def test_client_and_server_of_one_id_are_two_spans_and_an_edge() -> None:
    emits = process(make_log((0, [ROOT, CALL, HANDLE])), ONE)
    assert red(emits) == {
        ("shop", "Server"): (1, 0, 1),
        ("shop", "Client"): (1, 0, 1),
        ("stock", "Server"): (1, 1, 1),
    }
    assert edge_sums(emits) == {("outside", "shop"): (1, 0), ("shop", "stock"): (1, 0)}
    row = edge(emits, "shop", "stock")
    assert row["errors"] == 1
    assert len(row["client_histogram"]) == len(row["server_histogram"]) == 1  # type: ignore[arg-type]  # maps
    assert stored(emits) == [("shop", "GET /"), ("shop", "call"), ("stock", "handle")]
    assert total(emits, "ledger", "duplicate") == 0


def test_a_request_of_spans_that_share_an_id_is_still_a_copy_when_it_comes_again() -> None:
    spans = [ROOT, CALL, HANDLE]
    once, thrice = (
        process(make_log(*((at_s, spans) for at_s in times)), SECONDS) for times in ([0], [0, 0.5, 4])
    )
    for table in ("red_10s", "edges_10s", "otel_traces"):
        assert rows(thrice, table) == rows(once, table)
    assert (total(thrice, "ledger", "duplicate"), total(thrice, "ledger", "kept")) == (6, 3)


@pytest.mark.parametrize("order", [(CALL, HANDLE), (HANDLE, CALL)])
@pytest.mark.parametrize("apart_s", [0.5, 2, 6])
def test_the_halves_of_a_call_may_come_in_different_panes(order: tuple[Span, Span], apart_s: float) -> None:
    emits = process(make_log((0, [ROOT, order[0]]), (apart_s, [order[1]])), SECONDS)
    assert edge_sums(emits) == {("outside", "shop"): (1, 0), ("shop", "stock"): (1, 0)}
    assert len(rows(emits, "otel_traces")) == 3


@pytest.mark.parametrize("apart_s", [0, 2, 6])
def test_halves_without_a_parent_are_a_call_unless_the_callers_comes_after_the_decision(
    apart_s: float,
) -> None:
    call, handle = replace(CALL, parent=0), replace(HANDLE, parent=0)
    emits = process(make_log((0, [handle]), (apart_s, [call])), SECONDS)
    client = "shop" if apart_s <= SECONDS.wait else "outside"
    assert edge_sums(emits) == {(client, "stock"): (1, 0)}


def test_children_of_a_shared_id_are_below_the_half_of_their_own_process() -> None:
    spans = [
        ROOT, CALL, HANDLE,
        Span("shop", 3, 2, INTERNAL),  # the caller's: resolving a name
        Span("stock", 4, 2, CLIENT),  # the callee's: a further call
        Span("ledger", 5, 4, SERVER),
        Span("audit", 6, 2, SERVER),  # of neither: below the one that was called
    ]  # fmt: skip
    sums = edge_sums(process(make_log((0, spans)), ONE))
    assert {key: calls for key, (calls, _) in sums.items() if key[0] != "outside"} == {
        ("shop", "stock"): 1, ("stock", "ledger"): 1, ("stock", "audit"): 1
    }  # fmt: skip


def test_a_sidecar_hands_the_id_on_to_its_app() -> None:
    spans = [
        Span("shop", 2, 0, CLIENT),
        proxy("stock/p", 2, 0, SERVER),
        Span("stock/a", 2, 0, SERVER, start_s=0.001),
        Span("stock/a", 3, 2, CLIENT, start_s=0.002),
        proxy("ledger", 3, 2, SERVER, start_s=0.003),
    ]
    assert edge_sums(process(make_log((0, spans)), ONE)) == {
        ("shop", "stock"): (1, 0),
        ("stock", "ledger"): (1, 0),
    }


def test_a_call_that_is_tried_again_reaches_the_server_twice_under_one_id() -> None:
    spans = [CALL, HANDLE, replace(HANDLE, start_s=0.01, status=0)]
    emits = process(make_log((0, spans)), ONE)
    assert red(emits)["stock", "Server"] == (2, 1, 2)
    assert edge_sums(emits) == {("shop", "stock"): (2, 0)}


@pytest.mark.parametrize(
    "other",
    [{"service": "clone"}, {"service": "shop/2"}, {"start_s": 0.5}, {"kind": PRODUCER}, {"attributes": {"component": "proxy"}}],
)  # fmt: skip
def test_what_differs_in_side_or_start_is_another_span(other: dict[str, object]) -> None:
    emits = process(make_log((0, [CALL]), (0.1, [replace(CALL, **other)])), ONE)  # type: ignore[arg-type]  # fields
    assert (total(emits, "red_10s", "requests"), total(emits, "ledger", "duplicate")) == (2, 0)


@pytest.mark.parametrize(
    "other", [{"name": "renamed"}, {"status": 2}, {"duration_ms": 7}, {"start_s": 0.0000004}]
)
def test_what_differs_in_what_it_says_is_a_copy(other: dict[str, object]) -> None:
    emits = process(make_log((0, [CALL]), (0.1, [replace(CALL, **other)])), ONE)  # type: ignore[arg-type]  # fields
    assert (total(emits, "red_10s", "requests"), total(emits, "ledger", "duplicate")) == (1, 1)


STARTED = Span("job", 1, kind=SERVER, duration_ms=0)
ENDED = replace(STARTED, duration_ms=1200, status=2)


@pytest.mark.parametrize("reverse", [False, True])
def test_of_an_unfinished_span_and_its_end_in_one_pane_the_end_counts(reverse: bool) -> None:
    first, second = (ENDED, STARTED) if reverse else (STARTED, ENDED)
    emits = process(make_log((0, [first]), (0.5, [second])), SECONDS)
    assert red(emits) == {("job", "Server"): (1, 1, 1)}
    (row,) = rows(emits, "otel_traces")
    assert (row["Duration"], row["StatusCode"]) == (1_200_000_000, "Error")
    assert edge(emits, "outside", "job")["errors"] == 1
    assert (total(emits, "ledger", "duplicate"), total(emits, "ledger", "kept")) == (1, 1)


@pytest.mark.parametrize(("at_s", "stored_as"), [(2, [1200]), (6, [0, 1200])])
def test_an_end_in_a_later_pane_adds_its_failure_and_duration_but_no_request(
    at_s: float, stored_as: list[int]
) -> None:
    again = [(at_s + 1, [ENDED]), (at_s + 2, [STARTED])]
    emits = process(make_log((0, [STARTED]), (at_s, [ENDED]), *again), SECONDS)
    timed = 1 if at_s <= SECONDS.wait else 2
    assert red(emits) == {("job", "Server"): (1, 1, timed)}, (
        "the start has no duration of its own but where it stays"
    )
    assert total(emits, "red_10s", "duration_ns_sum") == 1_200_000_000
    durations = sorted(row["Duration"] for row in rows(emits, "otel_traces"))  # type: ignore[type-var]  # numbers
    assert [duration // 1_000_000 for duration in durations] == stored_as  # type: ignore[operator]  # numbers
    assert total(emits, "ledger", "duplicate") == 4 - len(stored_as)
    row = edge(emits, "outside", "job")
    assert (row["calls"], row["errors"]) == (1, int(at_s <= SECONDS.wait)), (
        "a later end leaves the edge as it was"
    )


def test_a_failure_that_was_counted_unfinished_is_not_counted_again() -> None:
    emits = process(make_log((0, [replace(STARTED, status=2)]), (2, [ENDED])), SECONDS)
    assert total(emits, "red_10s", "errors") == 1


def test_heartbeats_of_an_unfinished_span_are_one_request() -> None:
    log = make_log(*((at_s, [STARTED]) for at_s in range(5)), (5, [ENDED]))
    emits = process(log, SECONDS)
    assert red(emits) == {("job", "Server"): (1, 1, 2)}


def test_producer_and_consumer_of_one_id_have_their_queue_between_them() -> None:
    queue = {"messaging.system": "kafka", "messaging.destination.name": "orders"}
    spans = [Span("a", 1, 0, PRODUCER, attributes=queue), Span("b", 1, 0, CONSUMER, attributes=queue)]
    assert edge_sums(process(make_log((0, spans)), ONE)) == {
        ("a", "kafka:orders"): (1, 0),
        ("kafka:orders", "b"): (1, 0),
    }


def test_a_call_whose_child_became_its_proxys_later_counts_once() -> None:
    """The call had a child when it was decided, so it was not counted by itself: nothing is taken back."""
    call = replace(proxy("a", 1, kind=CLIENT, cluster="c"), parent=0)
    app, sidecar = Span("b", 1, 0, SERVER), replace(proxy("b", 1), parent=0, start_s=1)
    app = replace(app, start_s=2)
    emits = process(make_log((1, [call]), (3, [app]), (5, [sidecar])), SECONDS)
    assert [
        (row["client_service"], row["server_service"], row["calls"]) for row in rows(emits, "edges_10s")
    ] == [("a", "b", 1)]


def test_the_callers_half_stands_for_its_trace_in_budgets() -> None:
    few = SamplingSettings(
        policies=(
            Budget(name="few", type="budget", budget=BudgetOptions(traces_per_second=1, keys=["service"])),
        )
    )
    spans = [
        half
        for trace in range(1, 21)
        for half in (replace(HANDLE, parent=0, trace=trace), replace(CALL, parent=0, trace=trace))
    ]
    callers = process(make_log((0, [span for span in spans if span.kind == CLIENT])), ONE, few)
    emits = process(make_log((0, spans)), ONE, few)
    kept = {row["TraceId"] for row in rows(emits, "otel_traces")}
    assert kept == {row["TraceId"] for row in rows(callers, "otel_traces")}


def test_both_halves_count_as_spans_of_their_trace() -> None:
    three = SamplingSettings(
        policies=(SpanCount(name="three", type="span_count", span_count=SpanCountOptions(min_spans=3)),)
    )
    emits = process(make_log((0, [ROOT, CALL, HANDLE]), (0.5, [HANDLE])), ONE, three)
    assert len(rows(emits, "otel_traces")) == 3
    assert rows(process(make_log((0, [ROOT, CALL, CALL])), ONE, three), "otel_traces") == []
