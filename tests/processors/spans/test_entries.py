"""A request is counted where it enters a node: the outermost SERVER or CONSUMER span, a gateway's root
CLIENT.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.panes import Emit
from processors.settings import ProcessorSettings
from processors.spans.edges.entries import DEPTH
from processors.spans.signal import span_processor
from schemas import topics
from schemas.records import Commit, TopicPartition
from tests.support.examples import examples
from tests.support.span_log import (
    CLIENT,
    CONSUMER,
    INTERNAL,
    KEEP_ALL,
    PRODUCER,
    SERVER,
    Span,
    blocks,
    edge_sums,
    make_log,
    process,
    proxy,
    read_requests,
    replay,
    rows,
    total,
)

DATA = Path(__file__).parents[2] / "data"

ONE = ProcessorSettings(partitions=1)
SECONDS = ProcessorSettings(partitions=1, pane=timedelta(seconds=1), lookback=timedelta(seconds=10))
GATEWAY = {"component": "proxy", "node_id": "router~10.1.1.1~gw-1.shop~shop.svc.cluster.local"}

SIDECAR = proxy("shop/p/pod", 2, 1)
INBOUND = proxy("shop/p/pod", 3, 2, CLIENT, cluster="inbound|8080||")
APP = Span("shop/a/pod", 4, 3)
CALLER = Span("web", 1, 0, CLIENT)


def entered(emits: Sequence[Emit]) -> dict[tuple[object, object], tuple[int, int]]:
    """(service, kind) -> requests that entered, and that did not."""
    found: dict[tuple[object, object], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for row in rows(emits, "red_10s"):
        assert row["entered"] in (1, 2)
        inside, outside = found[row["service"], row["kind"]]
        requests: int = row["requests"]  # type: ignore[assignment]  # a count
        is_entry = row["entered"] == 1
        found[row["service"], row["kind"]] = (
            inside + requests * is_entry,
            outside + requests * (not is_entry),
        )
    return dict(found)


def entries(*spans: Span) -> dict[object, int]:
    """Service -> requests that entered, of spans that came together."""
    counts: dict[object, int] = defaultdict(int)
    for (service, _), (count, _) in entered(process(make_log((0, spans)), ONE)).items():
        counts[service] += count
    return {service: count for service, count in counts.items() if count}


def test_an_app_behind_its_sidecar_is_one_request() -> None:
    spans = [CALLER, SIDECAR, INBOUND, APP]
    assert entered(process(make_log((0, spans)), ONE)) == {
        ("web", "Client"): (0, 1), ("shop", "Server"): (1, 1), ("shop", "Client"): (0, 1)
    }  # fmt: skip


def test_so_it_is_without_a_span_of_the_attempt() -> None:
    assert entries(CALLER, SIDECAR, replace(APP, parent=2)) == {"shop": 1}


def test_an_app_alone_and_a_sidecar_alone_are_entries() -> None:
    assert entries(CALLER, replace(APP, parent=1)) == {"shop": 1}
    assert entries(CALLER, SIDECAR) == {"shop": 1}


def test_nested_spans_of_frameworks_are_one_request() -> None:
    handler = Span("shop", 3, 2, INTERNAL)
    assert entries(Span("shop", 1), Span("shop", 2, 1), handler, Span("shop", 4, 3)) == {"shop": 1}


def test_a_message_received_within_a_request_is_that_request() -> None:
    assert entries(Span("shop", 1), Span("shop", 2, 1, CONSUMER)) == {"shop": 1}


def test_a_message_from_the_own_service_enters_anew() -> None:
    queue = {"messaging.system": "kafka", "messaging.destination.name": "orders"}
    sent = Span("shop", 2, 1, PRODUCER, attributes=queue)
    assert entries(Span("shop", 1), sent, Span("shop", 3, 2, CONSUMER, attributes=queue)) == {"shop": 2}


def test_replicas_that_call_each_other_are_two_requests() -> None:
    assert entries(Span("shop/1", 1), Span("shop/1", 2, 1, CLIENT), Span("shop/2", 3, 2)) == {"shop": 2}


def test_a_service_that_calls_itself_is_two_requests() -> None:
    assert entries(Span("shop", 1), Span("shop", 2, 1, CLIENT), Span("shop", 3, 2)) == {"shop": 2}


def test_a_gateways_root_client_is_an_entry_and_what_is_below_it_in_the_gateway_is_not() -> None:
    root = Span("gw", 1, 0, CLIENT, attributes=GATEWAY)
    assert entries(root, Span("gw", 2, 1, CLIENT, attributes=GATEWAY), Span("shop", 3, 2)) == {
        "gw": 1,
        "shop": 1,
    }


def test_a_gateways_client_is_no_entry_below_its_server_and_a_services_client_never_is() -> None:
    server = Span("gw", 1, 0, SERVER, attributes=GATEWAY)
    assert entries(server, Span("gw", 2, 1, CLIENT, attributes=GATEWAY)) == {"gw": 1}
    assert entries(Span("job", 1, 0, CLIENT)) == {}


def test_a_span_that_names_itself_as_its_parent_is_an_entry() -> None:
    assert entries(Span("shop", 1, 1)) == {"shop": 1}


@pytest.mark.parametrize(("between", "requests"), [(DEPTH, 1), (DEPTH + 1, 2)])
def test_so_many_spans_may_be_between(between: int, requests: int) -> None:
    chain = [Span("shop", 2 + n, 1 + n, INTERNAL) for n in range(between)]
    assert entries(Span("shop", 1), *chain, Span("shop", 2 + between, 1 + between)) == {"shop": requests}


@pytest.mark.parametrize("order", [(SIDECAR, INBOUND, APP), (INBOUND, SIDECAR, APP), (APP, INBOUND, SIDECAR)])
@pytest.mark.parametrize("apart_s", [1, 2])
def test_spans_of_one_request_may_come_in_different_panes(order: Sequence[Span], apart_s: int) -> None:
    arrivals = [(0.0, [order[0]]), (float(apart_s), order[1:])]
    assert entered(process(make_log(*arrivals), SECONDS))["shop", "Server"] == (1, 1)


@pytest.mark.parametrize("late", [[SIDECAR], [SIDECAR, INBOUND]])
def test_a_parent_that_comes_too_late_is_the_inner_one(late: list[Span]) -> None:
    app = replace(APP, parent=late[-1].id)
    emits = process(make_log((0, [app]), (6, late)), SECONDS)
    assert entered(emits)["shop", "Server"] == (1, 1)
    first, *_ = (row for row in rows(emits, "red_10s") if row["kind"] == "Server")
    assert first["entered"] == 1, "the app's, which was decided alone"


def test_a_parent_of_an_inner_span_is_an_entry_however_late_its_other_children_came() -> None:
    other = replace(APP, id=5)
    emits = process(make_log((0, [SIDECAR, INBOUND, APP]), (6, [other])), SECONDS)
    assert entered(emits)["shop", "Server"] == (1, 2)


@pytest.mark.parametrize("apart_s", [1, 2, 5])
def test_an_end_is_counted_where_its_start_was(apart_s: int) -> None:
    started = replace(APP, duration_ms=0)
    failed = replace(started, duration_ms=30, status=2)
    emits = process(make_log((0, [SIDECAR, INBOUND, started]), (apart_s, [failed])), SECONDS)
    found = [row for row in rows(emits, "red_10s") if row["errors"]]
    assert [(row["entered"], row["requests"], row["errors"]) for row in found] == [(2, 0, 1)]
    assert entered(emits)["shop", "Server"] == (1, 1)


def test_roots_are_counted_once() -> None:
    started = Span("job", 1, duration_ms=0)
    emits = process(
        make_log((0, [started, Span("job", 2, 1)]), (5, [replace(started, duration_ms=9)])), SECONDS
    )
    assert total(emits, "red_10s", "roots") == 1


@pytest.mark.parametrize(
    ("flags", "host", "apart"),
    [
        ("FI", "", "injected"),
        ("DI,UT", "", "injected"),
        ("DIX", "", ""),
        ("UT", "", ""),
        ("-", "stock-shadow:80", "mirrored"),
        ("FI", "stock-shadow:80", "mirrored"),
    ],
)
def test_injected_faults_and_mirrored_requests_are_apart(flags: str, host: str, apart: str) -> None:
    attributes = {"http.url": f"http://{host}/"} if host else {}
    emits = process(make_log((0, [proxy("a", 1, flags=flags, attributes=attributes)])), ONE)
    assert [row["apart"] for row in rows(emits, "red_10s")] == [apart]


def test_protocols_are_told_apart() -> None:
    spans = [
        Span("a", 1, attributes={"rpc.system": "grpc"}),
        Span("a", 2, attributes={"http.request.method": "GET"}),
        Span("a", 3),
    ]
    found = rows(process(make_log((0, spans)), ONE), "red_10s")
    assert sorted(str(row["protocol"]) for row in found) == ["", "grpc", "http"]


def test_restarts_find_the_same_entries() -> None:
    log = make_log(
        *((at, [replace(span, id=span.id + 10 * at, parent=span.parent and span.parent + 10 * at, trace=at + 1)])
          for at in range(12) for span in (APP, INBOUND, SIDECAR)),
        *((6 + at / 2, [replace(SIDECAR, id=2 + 10 * at, parent=0, trace=at + 1, start_s=1)]) for at in range(12)),
    )  # fmt: skip
    log = [
        replace(record, offset=n) for n, record in enumerate(sorted(log, key=lambda one: one.append_time_ns))
    ]
    whole = blocks(process(log, SECONDS))
    for stop in range(4, len(log), 7):
        processor = span_processor(TopicPartition(topics.SPANS, 0), SECONDS, KEEP_ALL)
        emits = processor.feed(log[:stop])
        commit: Commit | None = emits[-1].commit if emits else None
        again = blocks([*emits, *process(log, SECONDS, commit=commit)])
        assert again.keys() == whole.keys()
        assert all(again[token].equals(found) for token, found in whole.items()), stop


class _Mesh:
    """Walks of parents, span by span: the rules in plain words."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._spans = {(span.trace, span.id): span for span in spans}

    def inner(self, span: Span) -> bool:
        for _ in range(DEPTH + 1):
            parent = self._spans.get((span.trace, span.parent))
            if parent is None or parent is span or not self._stays(span, parent):
                return False
            if parent.kind in (SERVER, CONSUMER):
                return True
            span = parent
        return False

    @staticmethod
    def _stays(span: Span, parent: Span) -> bool:
        (service, instance, pod), (p_service, p_instance, p_pod) = (
            (*each.service.split("/"), "", "")[:3] for each in (span, parent)
        )
        mixed = (span.attributes.get("component") == "proxy") != (
            parent.attributes.get("component") == "proxy"
        )
        pods = bool(pod and p_pod)
        if mixed and pods and pod == p_pod:
            return True
        if service != p_service:
            return False
        if mixed:
            return not pods or pod == p_pod
        if instance and p_instance:
            return instance == p_instance
        return not (not instance and not p_instance and parent.kind == CLIENT and span.kind == SERVER)


@st.composite
def meshes(draw: st.DrawFn) -> list[Span]:
    spans = []
    for trace in range(1, draw(st.integers(1, 4)) + 1):
        for number in range(1, draw(st.integers(1, 9)) + 1):
            service = draw(st.sampled_from(["a/1", "a/2", "a", "b/1/pod", "b/p/pod", "b"]))
            kind = draw(st.sampled_from([SERVER, SERVER, INTERNAL, CLIENT, CONSUMER]))
            parent = draw(st.integers(0, number - 1)) if number > 1 else 0
            attributes = {"component": "proxy"} if draw(st.booleans()) else {}
            spans.append(Span(service, number, parent, kind, trace=trace, attributes=attributes))
    return spans


@examples(40)
@given(meshes(), st.randoms(use_true_random=False))
def test_entries_are_those_of_a_walk(spans: list[Span], random: object) -> None:
    mesh = _Mesh(spans)
    called = [span for span in spans if span.kind in (SERVER, CONSUMER)]
    inner = sum(mesh.inner(span) for span in called)
    random.shuffle(spans)  # type: ignore[attr-defined]  # a Random
    arrivals = [(number % 3, [span]) for number, span in enumerate(spans)]
    emits = process(make_log(*sorted(arrivals, key=lambda one: one[0])), SECONDS)
    found = [row for row in rows(emits, "red_10s") if row["entered"] == 1]
    assert sum(row["requests"] for row in found) == len(called) - inner  # type: ignore[misc]  # counts
    assert {row["kind"] for row in found} <= {"Server", "Consumer"}


def test_requests_that_enter_a_service_are_the_calls_into_it() -> None:
    spans = [
        CALLER, SIDECAR, INBOUND, APP, Span("shop/a/pod", 5, 4, CLIENT), proxy("shop/p/pod", 6, 5, CLIENT, cluster="stock"),
        proxy("stock/p/s", 7, 6), replace(APP, service="stock/a/s", id=8, parent=7), Span("web", 9, 0), Span("web", 10, 9, CLIENT),
        replace(SIDECAR, id=11, parent=10),
    ]  # fmt: skip
    emits = process(make_log((0, spans)), ONE)
    calls: dict[object, int] = defaultdict(int)
    for (_, server), (count, _) in edge_sums(emits).items():
        calls[server] += count
    assert {service: count for service, count in entries(*spans).items() if count} == calls


@pytest.mark.parametrize("capture", ["envoy", "envoy_spawn", "istio"])
def test_in_captured_meshes_requests_that_enter_a_service_are_the_calls_into_it(capture: str) -> None:
    (log,) = replay(read_requests(DATA / capture / "traces.bin.gz"), 1, 62)
    emits = process(log, ONE)
    red: Counter[tuple[object, ...]] = Counter()
    calls: Counter[tuple[object, ...]] = Counter()
    for row in rows(emits, "red_10s"):
        red[row["cluster"], row["service"]] += row["requests"] if row["entered"] == 1 else 0  # type: ignore[operator]  # a count
    for row in rows(emits, "edges_10s"):
        if row["connection"] in ("service", "outside"):
            calls[row["server_cluster"], row["server_service"]] += row["calls"]  # type: ignore[operator]  # a count
    assert +red == +calls
    assert sum(red.values()) > 50
