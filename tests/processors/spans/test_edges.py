import json
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from processors.panes import Emit
from processors.settings import Dimension, HeadSampling, LabelLimits, ProcessorSettings
from tests.support.examples import examples
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
    read_requests,
    replay,
    rows,
    total,
)

DATA = Path(__file__).parents[2] / "data"
ONE = ProcessorSettings(partitions=1)
SECONDS = ProcessorSettings(partitions=1, pane=timedelta(seconds=1), lookback=timedelta(seconds=10))


def edges_of(*spans: Span, settings: ProcessorSettings = ONE) -> dict[tuple[object, ...], tuple[int, int]]:
    """(calls, unsent) of spans that all came at once, but for calls from outside."""
    sums = edge_sums(process(make_log((0, spans)), settings))
    return {key: value for key, value in sums.items() if key[0] != "outside"}


def edge(emits: list[Emit], client: str, server: str) -> dict[str, object]:
    (found,) = (
        row
        for row in rows(emits, "edges_10s")
        if (row["client_service"], row["server_service"]) == (client, server)
    )
    return found


@pytest.mark.parametrize(
    ("pane_s", "partitions", "duration_s"), [(5, 4, 62), (1, 1, 62), (2, 3, 62), (5, 4, 3), (60, 1, 62)]
)
def test_capture_has_envoys_own_counts(pane_s: int, partitions: int, duration_s: float) -> None:
    given_settings = ProcessorSettings(pane=timedelta(seconds=pane_s), partitions=partitions)
    logs = replay(read_requests(DATA / "envoy" / "traces.bin.gz"), partitions, duration_s)
    emits = [
        emit for number, log in enumerate(logs) for emit in process(log, given_settings, partition=number)
    ]
    sums = edge_sums(emits, ("client_service", "server_service", "server_version", "response_flags"))
    calls: Counter[tuple[object, ...]] = Counter()
    for key, (reached, _) in sums.items():
        calls[key[:3]] += reached
    assert calls["front-proxy", "order-service", "v1"] == 319
    assert calls["front-proxy", "product-service", "v1"] == 298
    assert calls["front-proxy", "product-service", "v2"] == 59
    assert calls["order-service", "product-service", "v1"] == 311
    assert calls["order-service", "product-service", "v2"] == 53
    unsent = {key: refused for key, (_, refused) in sums.items() if refused}
    assert unsent == {
        ("front-proxy", "order-service", "", "UO"): 210,
        ("order-service", "product-service", "", "UO"): 6,
        ("front-proxy", "unknown", "", "NR"): 10,
    }
    assert total(emits, "edges_10s", "retries") == 35 + 4 + 21 + 31 + 20
    assert total(emits, "edges_10s", "unanswered") % (1 << 64) == 0


@pytest.mark.parametrize("partitions", [1, 4])
def test_all_that_callers_of_the_capture_made_is_their_own_count(partitions: int) -> None:
    """docs/sql.md: calls + unsent + unanswered - retries = the requests that callers made."""
    requests = read_requests(DATA / "envoy" / "traces.bin.gz")
    logs = replay(requests, partitions, 62)
    given_settings = ProcessorSettings(partitions=partitions)
    emits = [
        emit for number, log in enumerate(logs) for emit in process(log, given_settings, partition=number)
    ]
    counted: Counter[object] = Counter()
    for row in rows(emits, "edges_10s"):
        if row["connection"] != "outside":
            whole = row["calls"] + row["unsent"] + row["unanswered"] - row["retries"]  # type: ignore[operator]  # counts
            counted[row["client_service"]] += whole
    made: Counter[object] = Counter()
    for request in requests:
        for of_resource in TracesData.FromString(request).resource_spans:
            (service,) = (
                each.value.string_value
                for each in of_resource.resource.attributes
                if each.key == "service.name"
            )
            made[service] += sum(
                span.kind == CLIENT or service == "front-proxy"  # whose listener has no direction
                for scope in of_resource.scope_spans
                for span in scope.spans
            )
    assert counted == {service: spans for service, spans in made.items() if spans}


@pytest.mark.parametrize(("pane_s", "partitions", "duration_s"), [(5, 4, 62), (1, 1, 62), (5, 8, 3)])
def test_capture_with_spawned_upstream_spans_has_envoys_own_counts(
    pane_s: int, partitions: int, duration_s: float
) -> None:
    given_settings = ProcessorSettings(pane=timedelta(seconds=pane_s), partitions=partitions)
    logs = replay(read_requests(DATA / "envoy_spawn" / "traces.bin.gz"), partitions, duration_s)
    emits = [
        emit for number, log in enumerate(logs) for emit in process(log, given_settings, partition=number)
    ]
    sums = edge_sums(emits, ("client_service", "upstream_cluster"))
    expected = json.loads((DATA / "envoy_spawn" / "expected.json").read_text())["edges"]
    for name, counts in expected.items():
        assert sums[tuple(name.split())] == (counts["calls"], counts["unsent"]), name
    named = {
        row["upstream_cluster"]: row["server_service"] for row in rows(emits, "edges_10s") if row["unsent"]
    }
    assert named == {
        "order_service": "order-service",
        "product_v1": "product-service",
        "nobody": "nobody",
        "": "unknown",
    }


def test_another_service_is_an_edge_whatever_the_kinds() -> None:
    assert edges_of(Span("a", 1, kind=CLIENT), Span("b", 2, 1), Span("c", 3, 2, kind=CLIENT), Span("d", 4, 3, kind=INTERNAL)) == {
        ("a", "b"): (1, 0), ("b", "c"): (1, 0), ("c", "d"): (1, 0)
    }  # fmt: skip


def test_sidecar_and_app_are_one_node() -> None:
    spans = (
        Span("a/a1/pod-a", 1, kind=CLIENT),
        proxy("a/a1/pod-a", 2, 1, CLIENT),
        proxy("b/b1/pod-b", 3, 2, SERVER),
        Span("b/b1-app/pod-b", 4, 3),
        Span("other-name/x/pod-b", 5, 3),
    )
    assert edges_of(*spans) == {("a", "b"): (1, 0)}


def test_same_service_is_an_edge_between_instances_or_pods_only() -> None:
    assert edges_of(Span("a/1", 1, kind=CLIENT), Span("a/1", 2, 1), Span("a", 3, 1)) == {}
    assert edges_of(Span("a/1", 1, kind=CLIENT), Span("a/2", 2, 1)) == {("a", "a"): (1, 0)}
    assert edges_of(proxy("a/1", 1, kind=CLIENT), proxy("a/2", 2, 1)) == {("a", "a"): (1, 0)}
    assert edges_of(Span("a/1/p1", 1, kind=CLIENT), proxy("a/2/p2", 2, 1)) == {("a", "a"): (1, 0)}
    assert edges_of(Span("a/1", 1, kind=CLIENT), proxy("a/2", 2, 1)) == {}


def test_databases_are_nodes_unless_another_service_answers() -> None:
    database = {"db.system": "postgresql", "db.name": "orders"}
    spans = (
        Span("a", 1, kind=CLIENT, attributes=database),
        Span("a", 2, kind=CLIENT, attributes=database),
        Span("a", 3, 2, kind=INTERNAL),
        Span("a", 4, kind=CLIENT, attributes=database),
        Span("proxy-sql", 5, 4),
        Span("a", 6, kind=CLIENT, attributes={"db.system": "redis", "peer.service": "cache"}),
        Span("a", 7, kind=CLIENT, attributes={"db.system": "redis"}),
        Span("a", 8, kind=INTERNAL, attributes=database),
    )
    emits = process(make_log((0, spans)), ONE)
    assert edge_sums(emits) == {
        ("a", "postgresql:orders"): (2, 0), ("a", "proxy-sql"): (1, 0), ("a", "redis:cache"): (1, 0), ("a", "redis"): (1, 0)
    }  # fmt: skip
    assert edge(emits, "a", "redis")["connection"] == "database"


def test_queues_stand_between_producer_and_consumer() -> None:
    queue = {"messaging.system": "kafka", "messaging.destination.name": "orders"}
    spans = (
        Span("a", 1, kind=PRODUCER, attributes=queue),
        Span("b", 2, 1, kind=CONSUMER, attributes=queue),
        Span("b", 3, 2, kind=CONSUMER, attributes=queue),
        Span("b", 4, 3, kind=INTERNAL),
        Span("c", 5, 4, kind=SERVER),
        Span("d", 6, kind=PRODUCER, attributes={"messaging.system": "sqs"}),
        Span("e", 7, kind=PRODUCER),
        Span("f", 8, 7, kind=CONSUMER),
    )
    emits = process(make_log((0, spans)), ONE)
    assert edge_sums(emits) == {
        ("a", "kafka:orders"): (1, 0), ("kafka:orders", "b"): (1, 0), ("b", "c"): (1, 0), ("d", "sqs"): (1, 0), ("e", "f"): (1, 0)
    }  # fmt: skip
    assert edge(emits, "kafka:orders", "b")["connection"] == "queue"


def test_sending_and_receiving_may_be_client_spans() -> None:
    queue = {"messaging.system": "kafka", "messaging.destination.name": "orders"}

    def operation(name: str, key: str = "messaging.operation.type") -> dict[str, str]:
        return {**queue, key: name}

    spans = (
        Span("sender", 1, kind=CLIENT, attributes=operation("send")),
        Span("worker", 2, 1, kind=CONSUMER, attributes=operation("process")),
        Span("poller", 3, kind=CLIENT, attributes=operation("receive")),
        Span("poller", 4, 3, kind=CONSUMER, attributes=operation("process")),
        Span("old", 5, kind=CLIENT, attributes=operation("publish", "messaging.operation")),
        Span("batch", 6, kind=PRODUCER, attributes=operation("create")),
        Span("batch", 7, kind=CLIENT, attributes=operation("send")),
        Span("acks", 8, kind=CLIENT, attributes=operation("settle")),
    )
    assert edges_of(*spans) == {
        ("sender", "kafka:orders"): (1, 0), ("old", "kafka:orders"): (1, 0), ("batch", "kafka:orders"): (1, 0),
        ("kafka:orders", "worker"): (1, 0), ("kafka:orders", "poller"): (1, 0),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({"db.type": "sql", "db.instance": "shop"}, "sql:shop"),
        ({"db.name": "shop"}, "shop"),
        ({"db.namespace": "shop", "net.peer.name": "pg9"}, "shop"),
        ({"db.system": "redis", "network.peer.address": "10.0.0.7"}, "redis:10.0.0.7"),
        ({"db.system": "redis", "net.sock.peer.name": "redis-0"}, "redis:redis-0"),
        ({"db.system": "redis", "net.sock.peer.name": "redis-0", "server.address": "cache"}, "redis:cache"),
    ],
)
def test_databases_are_known_by_any_of_their_attributes(attributes: dict[str, str], name: str) -> None:
    assert edges_of(Span("a", 1, kind=CLIENT, attributes=attributes)) == {("a", name): (1, 0)}


def test_an_orm_above_a_driver_is_one_call_to_the_database() -> None:
    orm, driver = (
        {"db.system": "postgresql", "db.name": "orders"},
        {"db.system": "postgresql", "db.name": "orders"},
    )
    spans = (
        Span("a", 1, kind=CLIENT, attributes=orm),
        Span("a", 2, 1, kind=CLIENT, attributes=driver),
        Span("a", 3, kind=CLIENT, attributes=orm),
        Span("a", 4, 3, kind=CLIENT, attributes=driver),
        Span("a", 5, 3, kind=CLIENT, attributes=driver),
        Span("a", 6, kind=CLIENT, attributes=orm),
    )
    assert edges_of(*spans) == {("a", "postgresql:orders"): (4, 0)}


@pytest.mark.parametrize("at_s", [2, 5, 8])
def test_a_driver_span_that_comes_later_than_its_orms_decision_is_not_a_second_call(at_s: float) -> None:
    database = {"db.system": "pg"}
    orm, driver = (Span("a", n, n - 1, CLIENT, attributes=database) for n in (1, 2))
    for first, second in ((orm, driver), (driver, orm)):
        assert edge_sums(process(make_log((0, [first]), (at_s, [second])), SECONDS)) == {("a", "pg"): (1, 0)}


def test_root_servers_are_called_from_outside() -> None:
    emits = process(make_log((0, [Span("a", 1), Span("b", 2, 99), Span("c", 3, kind=CLIENT)])), ONE)
    assert edge_sums(emits) == {("outside", "a"): (1, 0)}
    assert edge(emits, "outside", "a")["connection"] == "outside"


def test_refused_calls_go_to_the_service_that_others_reach_through_the_cluster() -> None:
    spans = [
        *(proxy("a", 10 + number, kind=CLIENT, cluster="c") for number in range(3)),
        *(proxy("x", 20 + number, 10 + number) for number in range(3)),
        *(proxy("b", 30 + number, kind=CLIENT, cluster="c") for number in range(2)),
        *(proxy("y", 40 + number, 30 + number) for number in range(2)),
        proxy("a", 50, kind=CLIENT, cluster="c", flags="UO"),
        proxy("b", 51, kind=CLIENT, cluster="c", flags="UT,UH"),
        proxy("d", 52, kind=SERVER, cluster="c", flags="UO"),
        proxy("a", 53, kind=CLIENT, cluster="nowhere", flags="UH"),
        proxy("a", 54, kind=SERVER, flags="NR"),
        Span(
            "a", 55, kind=SERVER, attributes={"response_flags": "UO"}
        ),  # not a proxy's: nothing was sent anyway
        proxy("a", 56, kind=CLIENT, cluster="c", flags="DUO,UOX"),  # other flags
    ]
    emits = process(make_log((0, spans)), ONE)
    unsent = {key: counts[1] for key, counts in edge_sums(emits).items() if counts[1]}
    assert unsent == {("a", "x"): 1, ("b", "y"): 1, ("d", "x"): 1, ("a", "nowhere"): 1, ("a", "unknown"): 1}
    assert edge(emits, "a", "nowhere")["connection"] == "unknown"


def test_refused_calls_to_a_service_without_versions_are_rows_of_the_same_node() -> None:
    spans = [
        proxy("a", 1, kind=CLIENT, cluster="c", version=""),
        proxy("x", 2, 1, version=""),
        proxy("a", 3, kind=CLIENT, cluster="c", flags="UO", version=""),
    ]
    assert edges_of(*spans) == {("a", "x"): (1, 1)}


_DEAD = ("UF", "UF,URX", "UC", "UT", "-")


@pytest.mark.parametrize("kind", [CLIENT, SERVER])
def test_a_dead_upstream_shows(kind: int) -> None:
    good = [
        span
        for n in range(1, 31)
        for span in (proxy("a", 2 * n, kind=kind, parent=999, cluster="c"), proxy("x", 2 * n + 1, 2 * n))
    ]
    dead = [
        proxy("a", 100 + n, 999, kind, flags, "c", attributes={"http.status_code": "503"})
        for n, flags in enumerate(5 * (*_DEAD, "UH", "UO", "NR"))
    ]
    (fine, *failed) = sorted(
        (
            tuple(row[name] for name in ("response_flags", "calls", "unsent", "unanswered", "errors"))
            for row in rows(process(make_log((0, good + dead)), ONE), "edges_10s")
            if (row["client_service"], row["server_service"], row["connection"]) == ("a", "x", "service")
            and row["upstream_cluster"] == "c"
        ),
        key=lambda row: -row[1],  # type: ignore[operator]  # a count
    )
    assert fine == ("", 30, 0, 0, 0)
    expected = {(flags.replace("-", ""), 0, 0, 5, 5) for flags in _DEAD}
    assert {row for row in failed if row[3]} == expected
    assert {row[:4] for row in failed if not row[3]} == {(flags, 0, 5, 0) for flags in ("UH", "UO", "NR")}


def test_a_dead_upstream_that_nobody_reached_has_its_own_name() -> None:
    spans = [
        proxy("a", 1, kind=CLIENT, flags="UF", cluster="c"),
        proxy("b", 2, kind=SERVER, flags="UF", cluster="app"),
    ]
    row = edge(process(make_log((0, spans)), ONE), "a", "c")
    assert (row["calls"], row["unsent"], row["unanswered"], row["errors"]) == (0, 0, 1, 1)
    assert set(edges_of(*spans)) == {("a", "c")}, "a sidecar's own application is no service"


def test_an_attempt_that_leads_to_a_sidecars_own_application_is_no_call() -> None:
    def attempt(service: str, parent_name: str, trace: int) -> list[Span]:
        failed = {"error": "true"}
        return [
            proxy(service, trace * 10, kind=SERVER, trace=trace, name=parent_name),
            proxy(service, trace * 10 + 1, trace * 10, CLIENT, "UF", "app", name="router app egress", attributes=failed, trace=trace),
        ]  # fmt: skip

    assert edges_of(*attempt("in", "ingress", 1), *attempt("out", "egress b", 2)) == {("out", "app"): (0, 0)}
    reached = [proxy("in", 31, kind=CLIENT, cluster="app", trace=3), proxy("x", 32, 31, trace=3)]
    sums = edge_sums(
        process(make_log((0, [*attempt("in", "ingress", 1), *reached])), ONE),
        ("client_service", "server_service", "unanswered"),
    )
    assert sums["in", "x", 1] == (0, 0), "a gateway's listener may have no direction"


@pytest.mark.parametrize("evidence_s", [0.0, 6.0, 12.0])
def test_the_cluster_is_told_by_any_pane_of_the_window(evidence_s: float) -> None:
    refused = [proxy("a", 1, kind=CLIENT, cluster="c", flags="UO", trace=1)]
    reached = [proxy("a", 2, kind=CLIENT, cluster="c", trace=2), proxy("x", 3, 2, trace=2)]
    log = make_log(*sorted([(6.0, refused), (evidence_s, reached)], key=lambda arrival: arrival[0]))
    assert edge_sums(process(log, ONE)) == {("a", "x"): (1, 1)}


def test_a_refused_span_with_something_below_was_sent() -> None:
    spans = (
        proxy("a", 1, kind=SERVER, flags="UO,URX", cluster="c"),
        proxy("b", 2, 1),
        proxy("b", 3, 1, start_s=1),
    )
    assert edges_of(*spans) == {("a", "b"): (2, 0)}


def test_in_spawn_mode_the_attempt_counts_and_carries_the_flags() -> None:
    spans = (
        proxy("a", 1, kind=SERVER, cluster="c", flags="URX"),
        proxy("a", 2, 1, CLIENT, cluster="c", flags="UT", attributes={"error": "true"}),
        proxy("b", 3, 2, SERVER, flags="DC"),
        proxy("a", 4, 1, CLIENT, cluster="c", flags="UO", attributes={"retry.count": "1"}),
    )
    emits = process(make_log((0, spans)), ONE)
    found = {row["response_flags"]: row for row in rows(emits, "edges_10s") if row["client_service"] == "a"}
    assert {flags: (row["calls"], row["unsent"], row["errors"], row["retries"]) for flags, row in found.items()} == {
        "UT": (1, 0, 1, 0), "UO": (0, 1, 0, 1)
    }  # fmt: skip
    assert found["UO"]["server_service"] == "b"


def test_later_calls_below_one_proxy_span_are_retries() -> None:
    spans = (
        proxy("a", 1, kind=CLIENT, cluster="c"),
        proxy("b", 2, 1, start_s=3, version="v1"),
        proxy("b/2", 3, 1, start_s=1, version="v2"),
        proxy("other", 4, 1, start_s=2),
        Span("app", 5, kind=CLIENT),
        Span("b", 6, 5),
        Span("b", 7, 5, start_s=1),
    )
    emits = process(make_log((0, spans)), ONE)
    retries = {
        (row["client_service"], row["server_service"], row["server_version"]): row["retries"]
        for row in rows(emits, "edges_10s")
    }
    assert retries == {
        ("a", "b", "v1"): 1,
        ("a", "b", "v2"): 0,
        ("a", "other", "v1"): 0,
        ("app", "b", "v1"): 0,
    }


def test_histograms_errors_and_exemplar_of_both_ends() -> None:
    spans = (
        Span("a", 1, kind=CLIENT, duration_ms=100, trace=7),
        Span("b", 2, 1, duration_ms=10, status=2, trace=7),
        Span("a", 3, kind=CLIENT, duration_ms=200, trace=8),
        Span("b", 4, 3, duration_ms=10, trace=8),
        Span("a", 5, kind=SERVER, duration_ms=300, trace=9),  # no client span: its duration is not the call's
        Span("b", 6, 5, duration_ms=10, trace=9),
    )
    row = edge(process(make_log((0, spans)), ONE), "a", "b")
    assert (row["calls"], row["errors"]) == (3, 1)
    assert sorted(count for _, count in row["client_histogram"]) == [1, 1]  # type: ignore[attr-defined]  # a map
    assert [count for _, count in row["server_histogram"]] == [3]  # type: ignore[attr-defined]  # a map
    assert row["exemplar_trace_id"] == f"{7:032x}"


def test_rows_over_the_limit_are_counted_under_other() -> None:
    limited = ONE.model_copy(update={"labels": LabelLimits(series=2)})
    spans = [
        span
        for n in range(6)
        for span in (Span(f"c{n // 2}", 10 + n, kind=CLIENT), Span("s", 20 + n, 10 + n))
    ]
    sums = edge_sums(process(make_log((0, spans)), limited))
    assert len(sums) == 3, "which of equal rows keep their names is told by their hashes"
    assert sum(calls for calls, _ in sums.values()) == 6
    assert sums["other", "other"] == (2, 0)


def test_nodes_over_the_limit_are_called_other() -> None:
    limited = ONE.model_copy(update={"labels": LabelLimits(nodes=3)})
    spans = [
        span
        for n in range(6)
        for span in (Span(f"c{n // 3 * n}", 10 + n, kind=CLIENT), Span("s", 20 + n, 10 + n))
    ]
    spans += [
        Span("s", 100 + n, kind=CLIENT, attributes={"db.system": "pg", "db.name": f"tenant-{n}"})
        for n in range(20)
    ]
    sums = edge_sums(process(make_log((0, spans)), limited))
    named = {name for key in sums for name in key} - {"other"}
    assert {"s", "c0"} < named
    assert len(named) == 3
    assert sums["c0", "s"] == (3, 0)
    assert sum(calls for calls, _ in sums.values()) == 26
    assert sums["s", "other"][0] >= 19


def test_late_edges_go_to_every_level() -> None:
    spans = (Span("a", 1, kind=CLIENT, start_s=-4000), Span("b", 2, 1, start_s=-4000))
    emits = process(make_log((0, spans)), ONE)
    for table in ("edges_10s", "edges_1m", "edges_1h"):
        ((calls, late, slot),) = {(row["calls"], row["late"], row["slot"]) for row in rows(emits, table)}
        width = {"10s": 10, "1m": 60, "1h": 3600}[table.removeprefix("edges_")]
        assert (calls, late, slot) == (1, 1, (1_800_000_000 - 4000) // width * width)


def test_what_was_counted_by_itself_is_not_an_edge_too_when_its_child_comes_later() -> None:
    for caller in (
        proxy("a", 1, kind=CLIENT, cluster="c", flags="UO,URX"),
        Span("a", 1, kind=CLIENT, attributes={"db.system": "pg"}),
    ):
        server = "pg" if "db.system" in caller.attributes else "c"
        late = edge_sums(process(make_log((0, [caller]), (5, [Span("b", 2, 1)])), SECONDS))
        assert late.keys() == {("a", server)}, "its pane was decided at 3 s"
        in_time = edge_sums(process(make_log((0, [caller]), (2, [Span("b", 2, 1)])), SECONDS))
        assert in_time == {("a", "b"): (1, 0)}
        both = edge_sums(
            process(make_log((0, [caller]), (2, [Span("b", 2, 1)]), (6, [Span("b", 3, 1)])), SECONDS)
        )
        assert both == {("a", "b"): (2, 0)}, "it was not counted by itself"


def test_a_call_that_was_counted_by_itself_is_taken_back_when_its_child_comes_later() -> None:
    caller = proxy("a", 1, kind=CLIENT, cluster="c", flags="UT", trace=1)
    others = [proxy("a", 5, kind=CLIENT, cluster="c", trace=2), proxy("x", 6, 5, trace=2)]
    log = make_log((0, [caller, *others]), (5, [proxy("b", 3, 1)]), (6, [proxy("b", 4, 1)]))
    sums: Counter[tuple[object, ...]] = Counter()
    for row in rows(process(log, SECONDS), "edges_10s"):
        for kind in ("calls", "unanswered", "errors"):
            sums[row["server_service"], row["response_flags"], kind] += row[kind]  # type: ignore[operator]  # a count
        for _, count in row["client_histogram"]:  # type: ignore[attr-defined]  # a map
            sums[row["server_service"], row["response_flags"], "durations"] += count
    found = {key: value % (1 << 64) for key, value in sums.items() if key[0] != "a"}
    assert {key: value for key, value in found.items() if value} == {
        ("x", "", "calls"): 1, ("x", "", "durations"): 1, ("b", "UT", "calls"): 2, ("b", "UT", "durations"): 2
    }  # fmt: skip
    assert found["x", "UT", "unanswered"] == 0


_ATTRIBUTES: list[dict[str, str]] = [
    {}, {"request_size": "3"}, {"component": "proxy", "request_size": "10"}, {"component": "proxy", "response_flags": "UO"},
    {"response_flags": "NR", "request_size": "200"}, {"db.system": "pg"}, {"db.system": "pg", "response_flags": "UH"},
]  # fmt: skip


@st.composite
def meshes(draw: st.DrawFn, *, shared: bool = False) -> tuple[list[Span], list[float]]:
    """Traces of up to 12 spans, some of which share an id where they may, and when each span comes, within
    the lookback.
    """
    spans: list[Span] = []
    for trace in range(1, draw(st.integers(1, 3)) + 1):
        size = draw(st.integers(1, 12))
        for number in range(size):
            parent = draw(st.integers(0, number)) if number else 0
            span = Span(
                draw(st.sampled_from(["a/1", "a/2", "b/1", "c/1"])),
                trace * 100 + number + 1,
                parent and trace * 100 + parent,
                draw(st.sampled_from([INTERNAL, SERVER, CLIENT])),
                start_s=draw(st.integers(0, 5)),
                trace=trace,
                attributes=draw(st.sampled_from(_ATTRIBUTES)),
            )
            twins = [twin for twin in spans if twin.trace == trace]
            if shared and twins and draw(st.integers(0, 3)) == 0:
                twin = draw(st.sampled_from(twins))
                kind = SERVER if twin.kind == CLIENT else span.kind
                span = replace(
                    span, id=twin.id, parent=draw(st.sampled_from([twin.parent, span.parent])), kind=kind
                )
                if any(is_copy(span, other) for other in twins) or span.parent == span.id:
                    continue
            spans.append(span)
    return spans, [draw(st.floats(0, 9)) for _ in spans]


def is_copy(span: Span, other: Span) -> bool:
    """The same span by id, side and start."""
    one, two = ((each.id, each.kind, each.service, each.start_s, is_proxy(each)) for each in (span, other))
    return one == two


def is_proxy(span: Span) -> bool:
    return "component" in span.attributes


def is_database(span: Span) -> bool:
    return span.kind == CLIENT and "db.system" in span.attributes


def is_above(parent: Span, span: Span) -> bool:
    """Whether a span of the same id is the parent."""
    if parent is span or parent.id != span.id:
        return False
    if (span.kind, parent.kind) == (SERVER, CLIENT):
        return True
    same_service = parent.service[0] == span.service[0]
    if (span.kind, parent.kind) == (SERVER, SERVER):
        return same_service and is_proxy(parent) and not is_proxy(span)
    return (
        (span.kind, parent.kind) == (CLIENT, CLIENT)
        and same_service
        and is_proxy(span)
        and not is_proxy(parent)
    )


def preference(parent: Span, span: Span) -> tuple[object, ...]:
    """The larger, the rather it is the parent of the two that a span could have."""
    called = span.kind == SERVER and not is_proxy(span)
    before = parent.start_s <= span.start_s
    distance = parent.start_s if before else -parent.start_s
    if is_above(parent, span):
        return (
            True,
            parent.kind == SERVER,
            is_proxy(parent),
            parent.kind == SERVER,
            is_proxy(parent) == is_proxy(span),
            before,
            distance,
        )
    same_node = parent.service == span.service and not called
    same_service = parent.service[0] == span.service[0] and not called
    return (
        False,
        same_node,
        same_service,
        parent.kind == SERVER,
        is_proxy(parent) == is_proxy(span),
        before,
        distance,
    )


class Oracle:
    """The rules of edges, span by span."""

    def __init__(self, spans: list[Span], times_s: list[float]) -> None:
        self.pane = {id(span): int(time_s) for span, time_s in zip(spans, times_s, strict=True)}
        self.spans = spans
        self.parent = {id(span): self.parent_of(span) for span in spans}

    def parent_of(self, span: Span, known: int = 100) -> Span | None:
        """The parent, by what had come when the span's pane was decided, else by what came first; of what is
        ``known``: up to that pane.
        """
        found = [
            each
            for each in self.spans
            if self.pane[id(each)] <= known
            if is_above(each, span) or (span.parent and each.id == span.parent and each is not span)
        ]
        in_time = [each for each in found if self.pane[id(each)] <= self.pane[id(span)] + SECONDS.wait]
        if not in_time and span.parent and found:
            first = min(self.pane[id(each)] for each in found)
            in_time = [each for each in found if self.pane[id(each)] == first]
        best = max((preference(each, span) for each in in_time), default=None)
        found = [each for each in in_time if preference(each, span) == best]
        assume(len(found) < 2)  # any fixed order of their keys does
        return found[0] if found else None

    def children(self, span: Span) -> list[Span]:
        return [each for each in self.spans if self.parent[id(each)] is span]

    def late(self, child: Span, span: Span) -> bool:
        return self.pane[id(child)] > self.pane[id(span)] + SECONDS.wait

    def by_itself(self, span: Span) -> str:
        """The node that a span counts a call to by itself, or "": what had come below it when its pane was
        decided says so.
        """
        known = self.pane[id(span)] + SECONDS.wait
        below = [
            child
            for child in self.spans
            if not self.late(child, span) and self.parent_of(child, known) is span
        ]
        if not below and "response_flags" in span.attributes and (span.kind == CLIENT or is_proxy(span)):
            return "unknown"
        if any(child.service[0] != span.service[0] or is_database(child) for child in below):
            return ""
        return "pg" if is_database(span) else ""

    def told(self, child: Span, span: Span | None) -> bool:
        return span is not None and self.late(child, span) and self.by_itself(span) != ""

    def sums(self) -> dict[tuple[object, ...], tuple[int, int, float, int]]:
        """(calls, unsent, calls_estimated, request_bytes) of each edge and dimension: the instance of the
        callee, of a call that shows by its caller alone the caller's.
        """
        calls: dict[tuple[object, ...], int] = defaultdict(int)
        unsent: dict[tuple[object, ...], int] = defaultdict(int)
        estimated: dict[tuple[object, ...], float] = defaultdict(float)
        sizes: dict[tuple[object, ...], int] = defaultdict(int)

        def call(client: str, server: str, callee: Span, caller: Span | None = None) -> None:
            key = (client, server, callee.service[2])
            calls[key] += 1
            estimated[key] += WEIGHTS.get(callee.service[0], 1)
            sizes[key] += size(callee) or (size(caller) if caller else 0)

        for span in self.spans:
            service, instance = span.service.split("/")
            parent, counted = self.parent[id(span)], self.by_itself(span)
            told = self.told(span, parent)
            nested = told and parent is not None and is_database(parent) and parent.service[0] == service
            if counted == "unknown":
                unsent[service, counted, instance] += 1
                sizes[service, counted, instance] += size(span)
            elif counted and not nested:
                call(service, counted, span)
            if parent is None:
                if not span.parent and span.kind == SERVER:
                    call("outside", service, span)
                continue
            caller, caller_instance = parent.service.split("/")
            between = instance != caller_instance and is_proxy(span) == is_proxy(parent)
            if not told and (service != caller or between):
                call(caller, service, span, parent)
        return {key: (calls[key], unsent[key], estimated[key], sizes[key]) for key in {*calls, *unsent}}


def size(span: Span) -> int:
    return int(span.attributes.get("request_size", 0))


WEIGHTS = {"a": 2, "b": 8}
WEIGHED = SECONDS.model_copy(
    update={
        "head_sampling": tuple(
            HeadSampling(service=service, probability=1 / weight) for service, weight in WEIGHTS.items()
        ),
        "dimensions": (Dimension(name="instance", key="service.instance.id"),),
    }
)


@examples(8)
@given(meshes(shared=True))
def test_each_pair_counts_once_in_whatever_order_and_panes_its_ends_come(
    mesh: tuple[list[Span], list[float]],
) -> None:
    spans, times_s = mesh
    arrivals = sorted(zip(times_s, range(len(spans)), strict=True))
    log = make_log(*((at_s, [spans[number]]) for at_s, number in arrivals))
    found: dict[tuple[object, ...], Counter[str]] = defaultdict(Counter)
    for row in rows(process(log, WEIGHED), "edges_10s"):
        key = (row["client_service"], row["server_service"], dict(row["dimensions"])["instance"])  # type: ignore[call-overload]  # a map
        for name in ("calls", "unsent", "calls_estimated", "request_bytes"):
            found[key][name] += row[name]  # type: ignore[operator]  # a number
    sums = {
        key: (
            sum_["calls"] % (1 << 64),
            sum_["unsent"] % (1 << 64),
            sum_["calls_estimated"],
            sum_["request_bytes"] % (1 << 64),
        )
        for key, sum_ in found.items()
    }
    assert sums == Oracle(spans, times_s).sums()


REACH = 5
"""Panes after which a call that was counted by itself is not taken back any more: half the lookback."""

_NAMED: list[dict[str, str]] = [
    {}, {"component": "proxy", "upstream_cluster": "u"}, {"component": "proxy", "upstream_cluster": "u", "response_flags": "UF"},
    {"component": "proxy", "upstream_cluster": "v", "http.status_code": "503"}, {"server.address": "shop.example:80"},
    {"server.address": "b", "error": "true"}, {"error": "true"}, {"component": "proxy", "upstream_cluster": "u", "response_flags": "UO"},
]  # fmt: skip


def classes(spans: list[Span], times_s: list[float]) -> dict[tuple[str, str], int]:
    """How many calls a service made that were reached, unsent, unanswered: each once."""
    pane = {span.id: int(time_s) for span, time_s in zip(spans, times_s, strict=True)}
    counted: Counter[tuple[str, str]] = Counter()
    for span in spans:
        service, instance = span.service.split("/")
        children = [child for child in spans if child.parent == span.id]
        first = min((pane[child.id] - pane[span.id] for child in children), default=100)
        if first > SECONDS.wait and span.kind == CLIENT and span.attributes.keys() - {"component"}:
            failed = span.attributes.keys() & {"error", "response_flags", "http.status_code"}
            unsent = span.attributes.get("response_flags") == "UO"
            heard = (
                "http.status_code" in span.attributes
            )  # by somebody outside, unless others reached a service
            kinds = (
                ("unsent",) if unsent else ("503",) if heard else ("unanswered",) if failed else ("calls",)
            )
            if unsent or first > REACH:
                counted[service, kinds[0]] += 1
                continue  # it stays so; else a child that came too late takes it back
        for child in children:
            other, other_instance = child.service.split("/")
            if service != other or (instance != other_instance and is_proxy(span) == is_proxy(child)):
                counted[service, "calls"] += 1
    return counted


@examples(10)
@given(meshes(), st.data())
def test_every_call_of_a_caller_is_on_an_edge_once(
    mesh: tuple[list[Span], list[float]], data: st.DataObject
) -> None:
    spans, times_s = mesh
    spans = [
        replace(span, attributes=data.draw(st.sampled_from(_NAMED)) if span.kind == CLIENT else {})
        for span in spans
    ]
    arrivals = sorted(zip(times_s, range(len(spans)), strict=True))
    log = make_log(*((at_s, [spans[number]]) for at_s, number in arrivals))
    found: Counter[tuple[str, str]] = Counter()
    for row in rows(process(log, SECONDS), "edges_10s"):
        if row["connection"] != "outside":
            for kind in ("calls", "unsent", "unanswered"):
                found[row["client_service"], kind] += row[kind]  # type: ignore[index, operator]  # a count
    for key in found:
        found[key] %= 1 << 64  # as the database adds
    expected = classes(spans, times_s)
    for service in "abc":
        answers = expected[service, "503"]
        assert found[service, "unsent"] == expected[service, "unsent"]
        assert (
            found[service, "calls"] + found[service, "unanswered"]
            == answers + expected[service, "calls"] + expected[service, "unanswered"]
        )
        assert 0 <= found[service, "unanswered"] - expected[service, "unanswered"] <= answers
