"""Values of edges beside the counts: estimates, bytes, protocol, calls apart, what the mesh costs."""

from collections import Counter
from datetime import timedelta

import pytest

from processors.panes import Emit
from processors.settings import HeadSampling, ProcessorSettings
from schemas.histogram import bucket_of
from tests.support.span_log import CLIENT, CONSUMER, PRODUCER, Span, make_log, process, proxy, rows

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
