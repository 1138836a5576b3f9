"""Values of edges beside the counts: estimates, bytes, protocol, dimensions, calls apart, the mesh's cost."""

from collections import Counter
from datetime import timedelta

import pytest

from processors.limits import OTHER
from processors.panes import Emit
from processors.settings import Dimension, HeadSampling, ProcessorSettings
from processors.spans.signal import span_processor
from schemas import topics
from schemas.histogram import bucket_of
from schemas.records import TopicPartition
from tests.support.span_log import (
    CLIENT,
    CONSUMER,
    KEEP_ALL,
    PRODUCER,
    Span,
    blocks,
    make_log,
    process,
    proxy,
    rows,
)

MS = 1_000_000
ONE = ProcessorSettings(partitions=1)
SECONDS = ProcessorSettings(partitions=1, pane=timedelta(seconds=1), lookback=timedelta(seconds=10))


def edge_rows(emits: list[Emit], client: str = "a", server: str = "b") -> list[dict[str, object]]:
    found = (
        row
        for row in rows(emits, "edges_10s")
        if (row["client_service"], row["server_service"]) == (client, server)
    )
    return sorted(found, key=lambda row: (str(row["apart"]), str(row["protocol"])))


def one_edge(*spans: Span, settings: ProcessorSettings = ONE) -> dict[str, object]:
    (found,) = edge_rows(process(make_log((0, spans)), settings))
    return found


SAMPLED = ProcessorSettings(
    partitions=1,
    head_sampling=(
        HeadSampling(service="a", probability=0.5),
        HeadSampling(service="b", probability=0.125),
    ),
)


def test_a_call_stands_for_as_many_as_the_callees_span_else_the_callers() -> None:
    failed = {"error": "true"}
    spans = (
        proxy("a", 1, kind=CLIENT, cluster="b"),
        proxy("b", 2, 1, attributes=failed),
        proxy("a", 3, kind=CLIENT, cluster="b"),
        proxy("b", 4, 3),
        proxy("a", 5, kind=CLIENT, cluster="b", flags="UO"),
        proxy("a", 6, kind=CLIENT, cluster="b", flags="UF"),
    )
    found = edge_rows(process(make_log((0, spans)), SAMPLED))
    sums = {
        row["response_flags"]: (row["calls"], row["calls_estimated"], row["errors"], row["errors_estimated"])
        for row in found
    }
    assert sums == {"": (2, 16.0, 1, 8.0), "UO": (0, 0.0, 0, 0.0), "UF": (0, 0.0, 1, 2.0)}


def test_estimates_of_what_is_not_sampled_are_the_counts() -> None:
    row = one_edge(Span("a", 1, kind=CLIENT), Span("b", 2, 1, attributes={"error": "true"}))
    assert (row["calls"], row["calls_estimated"]) == (1, 1.0)
    assert row["errors"] == row["errors_estimated"]


@pytest.mark.parametrize("flags", ["DI", "FI", "DI,UT", "UC,FI"])
@pytest.mark.parametrize("end", ["caller", "callee"])
def test_calls_with_injected_faults_are_apart(flags: str, end: str) -> None:
    injected = [flags if end == each else "-" for each in ("caller", "callee")]
    spans = (
        proxy("a", 1, kind=CLIENT, cluster="b"),
        proxy("b", 2, 1),
        proxy("a", 3, kind=CLIENT, cluster="b", flags=injected[0]),
        proxy("b", 4, 3, flags=injected[1]),
    )
    found = edge_rows(process(make_log((0, spans)), ONE))
    assert [(row["apart"], row["calls"]) for row in found] == [("", 1), ("injected", 1)]


def test_flags_that_only_contain_those_letters_are_not_injected() -> None:
    row = one_edge(proxy("a", 1, kind=CLIENT, cluster="b", flags="XDI,FIX"), proxy("b", 2, 1))
    assert row["apart"] == ""


@pytest.mark.parametrize("end", [0, 1])
def test_mirrored_calls_are_apart_whichever_end_says_so_and_whatever_was_injected(end: int) -> None:
    urls = [{"http.url": "http://b-shadow/x"} if each == end else {} for each in (0, 1)]
    row = one_edge(
        proxy("a", 1, kind=CLIENT, cluster="b", flags="DI", attributes=urls[0]),
        proxy("b", 2, 1, attributes=urls[1]),
    )
    assert (row["apart"], row["calls"]) == ("mirrored", 1)


def test_an_injected_abort_is_apart_although_nothing_shows_at_the_server() -> None:
    spans = (
        proxy("a", 1, kind=CLIENT, cluster="b"),
        proxy("b", 2, 1),
        proxy("a", 3, kind=CLIENT, cluster="b", flags="FI", attributes={"http.status_code": "503"}),
    )
    found = edge_rows(process(make_log((0, spans)), ONE))
    assert [(row["apart"], row["calls"], row["unsent"]) for row in found] == [("", 1, 0), ("injected", 0, 1)]


_GRPC = {"rpc.system": "grpc"}
_HTTP = {"http.status_code": "200"}


@pytest.mark.parametrize(
    ("caller", "callee", "protocol"),
    [({}, {}, ""), (_HTTP, {}, "http"), (_HTTP, _GRPC, "grpc"), (_GRPC, _HTTP, "http"), ({}, _GRPC, "grpc")],
)
def test_the_protocol_is_the_callees_else_the_callers(
    caller: dict[str, str], callee: dict[str, str], protocol: str
) -> None:
    row = one_edge(Span("a", 1, kind=CLIENT, attributes=caller), Span("b", 2, 1, attributes=callee))
    assert row["protocol"] == protocol


def test_protocols_of_one_edge_are_rows_of_their_own() -> None:
    spans = (
        *(Span("a", number, kind=CLIENT, attributes=_GRPC) for number in (1, 3, 5)),
        *(
            Span("b", number + 1, number, attributes=each)
            for number, each in ((1, _GRPC), (3, _HTTP), (5, _GRPC))
        ),
    )
    found = edge_rows(process(make_log((0, spans)), ONE))
    assert [(row["protocol"], row["calls"]) for row in found] == [("grpc", 2), ("http", 1)]


def test_bytes_of_a_call_count_once_as_the_callee_says_else_the_caller() -> None:
    def sizes(request: int, response: int) -> dict[str, str]:
        return {"request_size": str(request), "response_size": str(response)}

    both = (proxy("a", 1, kind=CLIENT, attributes=sizes(10, 20)), proxy("b", 2, 1, attributes=sizes(11, 21)))
    caller_only = (proxy("a", 3, kind=CLIENT, attributes=sizes(100, 200)), proxy("b", 4, 3))
    each_one = (
        proxy("a", 5, kind=CLIENT, attributes=sizes(1000, 0)),
        proxy("b", 6, 5, attributes=sizes(0, 2000)),
    )
    row = one_edge(*both, *caller_only, *each_one)
    assert (row["request_bytes"], row["response_bytes"]) == (11 + 100 + 1000, 21 + 200 + 2000)


def overhead(*spans: Span) -> dict[int, int]:
    return dict(one_edge(*spans)["overhead_histogram"])  # type: ignore[call-overload, no-any-return]  # a map


@pytest.mark.parametrize(("longer_ms", "overhead_ns"), [(10.0, 0), (13.0, 3 * MS), (10.000001, 1), (9.0, 0)])
def test_what_the_mesh_costs_is_the_callers_duration_less_the_callees(
    longer_ms: float, overhead_ns: int
) -> None:
    caller = proxy("a", 1, kind=CLIENT, duration_ms=longer_ms)
    assert overhead(caller, proxy("b", 2, 1, duration_ms=10.0)) == {bucket_of(overhead_ns): 1}


def test_what_the_mesh_costs_is_measured_between_the_two_spans_of_the_edge() -> None:
    spans = (
        Span("a/app/pod-a", 1, kind=CLIENT, duration_ms=20),
        proxy("a/envoy/pod-a", 2, 1, CLIENT, duration_ms=18),
        proxy("b/envoy/pod-b", 3, 2, duration_ms=13),
        Span("b/app/pod-b", 4, 3, duration_ms=11),
    )
    assert overhead(*spans) == {bucket_of(5 * MS): 1}


def test_the_mesh_costs_nothing_known_where_no_answer_is_waited_for_or_a_duration_is_not_known() -> None:
    assert overhead(Span("a", 1, kind=PRODUCER, duration_ms=5), Span("b", 2, 1, CONSUMER)) == {}
    assert overhead(Span("a", 1, kind=CLIENT, duration_ms=5), Span("b", 2, 1, CONSUMER)) == {}
    assert overhead(Span("a", 1, kind=CLIENT, duration_ms=-1), Span("b", 2, 1)) == {}
    assert overhead(Span("a", 1, kind=CLIENT), Span("b", 2, 1, duration_ms=-1)) == {}
    assert overhead(Span("a", 1, kind=1, duration_ms=30), Span("b", 2, 1)) == {}


def test_all_values_of_a_call_are_taken_back_when_its_child_comes_later() -> None:
    said = {"request_size": "10", "response_size": "20", "http.status_code": "504"}
    caller = proxy("a", 1, kind=CLIENT, cluster="c", flags="UT,DI", trace=1, attributes=said)
    settings = SECONDS.model_copy(update={"head_sampling": SAMPLED.head_sampling})
    log = make_log((0, [caller]), (5, [proxy("b", 2, 1, attributes={"request_size": "12"})]))
    sums: Counter[tuple[object, ...]] = Counter()
    for row in rows(process(log, settings), "edges_10s"):
        if row["client_service"] == "a":
            key = (row["server_service"], row["apart"], row["protocol"])
            for name in ("unanswered", "errors", "request_bytes", "response_bytes"):
                sums[(*key, name)] += row[name]  # type: ignore[operator]  # a count
            for name in ("calls_estimated", "errors_estimated"):
                sums[(*key, name)] += row[name]  # type: ignore[operator]  # a number
    found = {key: value % (1 << 64) for key, value in sums.items()}
    assert {key: value for key, value in found.items() if value} == {
        ("b", "injected", "http", "calls_estimated"): 8.0,
        ("b", "injected", "http", "errors"): 1,
        ("b", "injected", "http", "errors_estimated"): 8.0,
        ("b", "injected", "http", "request_bytes"): 12,
        ("b", "injected", "http", "response_bytes"): 20,
    }


@pytest.mark.parametrize("child_s", [0.0, 2.0, 6.0])
def test_values_are_the_same_in_whatever_panes_the_ends_come(child_s: float) -> None:
    said = {"request_size": "7", **_GRPC}
    caller = Span("a", 1, duration_ms=30, kind=CLIENT, attributes=said)
    child = Span("b", 2, 1, attributes={"http.url": "http://b-shadow/"})
    for first, second in ((caller, child), (child, caller)):
        (row,) = edge_rows(process(make_log((0, [first]), (child_s, [second])), SECONDS))
        assert (row["apart"], row["protocol"], row["request_bytes"], row["calls_estimated"]) == (
            "mirrored", "http", 7, 1.0
        )  # fmt: skip
        assert row["overhead_histogram"] == [(bucket_of(20 * MS), 1)]


def test_over_the_limit_of_rows_only_what_is_apart_is_kept() -> None:
    spans = [
        Span("a", number, kind=CLIENT, attributes=_GRPC if number % 4 else _HTTP) for number in range(1, 9, 2)
    ]
    spans += [Span("b", number + 1, number) for number in range(1, 9, 2)]
    spans += [proxy("a", 11, kind=CLIENT, flags="DI"), proxy("b", 12, 11)]
    limits = ONE.labels.model_copy(update={"series": 0})
    emits = process(make_log((0, spans)), ONE.model_copy(update={"labels": limits}))
    found = edge_rows(emits, "other", "other")
    assert {(row["apart"], row["protocol"], row["calls"]) for row in found} >= {("injected", "", 1)}
    assert {row["protocol"] for row in found} == {""}


USER = Dimension(name="user", key="x.user", default="nobody")
PLAN = Dimension(name="plan", key="plan")


def by(*dimensions: Dimension, settings: ProcessorSettings = SECONDS) -> ProcessorSettings:
    return settings.model_copy(update={"dimensions": dimensions})


def users(emits: list[Emit], table: str = "edges_10s") -> dict[tuple[object, ...], int]:
    """(server, user) -> attempts of ``a``, those that are taken back taken off; of ``red_10s`` its spans."""
    sums: Counter[tuple[object, ...]] = Counter()
    for row in rows(emits, table):
        user = dict(row["dimensions"]).get("user")  # type: ignore[call-overload]  # a map
        if table == "red_10s":
            sums[row["service"], user] += row["requests"]  # type: ignore[operator]  # a count
        elif row["client_service"] == "a":
            for name in ("calls", "unsent", "unanswered"):
                sums[row["server_service"], user] += row[name]  # type: ignore[operator]  # a count
    return {key: count % (1 << 64) for key, count in sums.items() if count % (1 << 64)}


def test_edges_have_no_dimensions_where_none_is_configured() -> None:
    row = one_edge(Span("a", 1, kind=CLIENT), Span("b", 2, 1, attributes={"x.user": "gold"}))
    assert row["dimensions"] == []


def test_dimensions_of_a_call_are_the_callees_and_rows_of_their_own() -> None:
    spans = [
        Span("a", number, kind=CLIENT, attributes={"x.user": "caller", "plan": "caller"})
        for number in (1, 3, 5, 7)
    ]
    said: tuple[dict[str, str], ...] = (
        {"x.user": "gold", "plan": "x"},
        {"x.user": "gold", "plan": "x"},
        {"x.user": "gold"},
        {},
    )
    spans += [
        Span("b", number + 1, number, attributes=each)
        for number, each in zip((1, 3, 5, 7), said, strict=True)
    ]
    found = edge_rows(process(make_log((0, spans)), by(USER, PLAN)))
    assert {tuple(row["dimensions"]): row["calls"] for row in found} == {  # type: ignore[arg-type]  # a map
        (("user", "gold"), ("plan", "x")): 2, (("user", "gold"), ("plan", "")): 1, (("user", "nobody"), ("plan", "")): 1,
    }  # fmt: skip


def test_dimensions_of_a_call_that_shows_by_its_caller_alone_are_the_callers() -> None:
    said = {"x.user": "gold"}
    spans = (
        proxy("a", 1, kind=CLIENT, cluster="c", flags="UF", attributes=said),
        proxy("a", 2, kind=CLIENT, cluster="d", flags="UO", attributes=said),
        Span("a", 3, kind=CLIENT, attributes=said | {"db.system": "pg"}),
        Span("a", 4, kind=CLIENT, attributes=said | {"server.address": "e"}),
        Span("a", 5, kind=PRODUCER, attributes=said | {"messaging.destination.name": "q"}),
        Span("b", 6, 5, CONSUMER, attributes={"x.user": "silver"}),
    )
    assert users(process(make_log((0, spans)), by(USER))) == {
        (server, "gold" if server != "b" else "silver"): 1 for server in ("c", "d", "pg", "e", "q", "b")
    }


@pytest.mark.parametrize("child_s", [0.0, 2.0, 6.0])
def test_dimensions_are_the_callees_in_whatever_panes_the_ends_come(child_s: float) -> None:
    caller = Span("a", 1, kind=CLIENT, attributes={"x.user": "gold"})
    child = Span("b", 2, 1, attributes={"x.user": "silver"})
    for first, second in ((caller, child), (child, caller)):
        emits = process(make_log((0, [first]), (child_s, [second])), by(USER))
        assert users(emits) == {("b", "silver"): 1}


def test_edges_call_a_value_other_where_red_does_and_copies_and_rows_over_the_limit_change_nothing() -> None:
    said = ["x", "x", "y", "y", "y", "z", None, OTHER]
    spans = [Span("a", 2 * number, kind=CLIENT) for number in range(1, 9)]
    spans += [
        Span("b", 2 * number + 1, 2 * number, attributes={"x.user": user} if user else {})
        for number, user in enumerate(said, 1)
    ]
    two = by(USER.model_copy(update={"values": 2}))
    emits = process(make_log((0, spans), (3, spans)), two)
    named = {"x": 2, "y": 3, "nobody": 1, OTHER: 2}
    assert users(emits) == {("b", user): count for user, count in named.items()}
    assert {key[1]: count for key, count in users(emits, "red_10s").items() if key[0] == "b"} == named
    limits = two.labels.model_copy(update={"series": 1})
    (kept, folded) = rows(
        process(make_log((0, spans)), two.model_copy(update={"labels": limits})), "edges_10s"
    )
    if kept["client_service"] == "other":
        kept, folded = folded, kept
    assert (kept["dimensions"], kept["calls"]) == ([("user", "y")], 3)
    assert (folded["client_service"], folded["dimensions"], folded["calls"]) == (OTHER, [], 5)


def test_an_empty_value_is_not_the_empty_map_of_rows_over_the_limit() -> None:
    row = one_edge(Span("a", 1, kind=CLIENT), Span("b", 2, 1), settings=by(PLAN))
    assert row["dimensions"] == [("plan", "")]


def test_a_call_is_taken_back_under_the_dimensions_it_was_counted_by_also_after_a_restart() -> None:
    """Of the three new values of pane 6 one keeps its name, when it is counted and when it is taken back."""
    settings = by(USER.model_copy(update={"values": 10}))
    callers = [
        proxy("a", number, kind=CLIENT, cluster="c", flags="UT", trace=number, attributes={"x.user": f"u{number}"})
        for number in (1, 2, 3)
    ]  # fmt: skip
    children = [
        proxy("b", 10 + number, number, trace=number, attributes={"x.user": "steady"}) for number in (1, 2, 3)
    ]
    steady = [(at_s, [Span("d", 20 + at_s, trace=9, attributes={"x.user": "steady"})]) for at_s in range(12)]
    before = make_log(*steady[:6], (6, callers), end_s=9)
    assert users(process(before, settings)) == {("c", "u1"): 1, ("c", OTHER): 2}
    log = make_log(*steady[:6], (6, callers), *steady[7:11], (11, children))
    whole = process(log, settings)
    assert users(whole) == {("b", "steady"): 3}
    for stop in (8, 11):  # the callers are decided, their children have come
        emits = span_processor(TopicPartition(topics.SPANS, 0), settings, KEEP_ALL).feed(log[:stop])
        again = [*emits, *process(log, settings, commit=emits[-1].commit if emits else None)]
        assert blocks(again) == blocks(whole), stop


def test_late_calls_have_dimensions_at_every_level() -> None:
    spans = [
        Span("a", 1, kind=CLIENT, start_s=-4000),
        Span("b", 2, 1, start_s=-4000, attributes={"x.user": "gold"}),
    ]
    emits = process(make_log((0, spans)), by(USER))
    for table in ("edges_10s", "edges_1m", "edges_1h"):
        assert users(emits, table) == {("b", "gold"): 1}, table
