"""Who calls whom where Istio names services in tags of spans: the capture of ``tests.support.istio``."""

from collections import Counter
from datetime import timedelta

import pytest

from processors.panes import Emit
from processors.settings import ProcessorSettings
from tests.support.istio import CLUSTERS, FILE, TRACES, requests
from tests.support.span_log import (
    CLIENT,
    INTERNAL,
    SERVER,
    Span,
    edge_sums,
    make_log,
    process,
    read_requests,
    replay,
    rows,
)

ONE = ProcessorSettings(partitions=1)
PRODUCTPAGE = ("bookinfo", "productpage", "v1")


def test_the_capture_is_what_its_program_makes() -> None:
    assert read_requests(FILE) == list(requests())


def test_services_of_two_clusters_are_apart_and_an_app_is_its_sidecars_node() -> None:
    (log,) = replay(read_requests(FILE), 1, 3)
    emits = process(log, ONE)
    found: Counter[tuple[object, ...]] = Counter()
    for row in rows(emits, "edges_10s"):
        ends = tuple(
            row[f"{end}_{part}"]
            for end in ("client", "server")
            for part in ("cluster", "namespace", "service", "version")
        )
        for kind in ("calls", "unsent", "unanswered", "errors"):
            found[(*ends, row["connection"], kind)] += row[kind]  # type: ignore[operator]  # a count
    expected: Counter[tuple[object, ...]] = Counter()
    for cluster in CLUSTERS:
        gateway, page = (cluster, "istio-system", "istio-ingressgateway", "v1"), (cluster, *PRODUCTPAGE)
        reviews, ratings = (cluster, "bookinfo", "reviews", "v1"), (cluster, "bookinfo", "ratings", "v2")
        expected["", "", "outside", "", *gateway, "outside", "calls"] = TRACES
        expected[*gateway, *page, "service", "calls"] = TRACES
        expected[*page, *reviews, "service", "calls"] = TRACES
        expected[*page, "", "", "api.stripe.com", "", "external", "calls"] = TRACES
        expected[*page, "", "", "PassthroughCluster", "", "external", "calls"] = TRACES
        expected[*page, *ratings, "service", "unanswered"] = TRACES
        expected[*page, *ratings, "service", "errors"] = TRACES
    expected["cluster-b", *PRODUCTPAGE, "cluster-b", "bookinfo", "reviews", "v1", "service", "errors"] = (
        TRACES
    )
    assert {key: count for key, count in found.items() if count} == dict(expected)


def external(*spans: Span) -> dict[tuple[object, ...], tuple[int, int]]:
    keys = ("client_service", "server_service", "connection")
    return {
        key: value
        for key, value in edge_sums(process(make_log((0, spans)), ONE), keys).items()
        if key[0] != "outside"
    }


@pytest.mark.parametrize(
    ("attributes", "server"),
    [
        ({"peer.service": "legacy-billing"}, "legacy-billing"),
        ({"server.address": "api.pay.example", "server.port": "443"}, "api.pay.example"),
        ({"rpc.system": "grpc", "net.peer.name": "pay.example:443"}, "pay.example"),
        ({"http.url": "https://user@old.example:8443/x"}, "old.example"),
        ({"url.full": "http://new.example?q", "network.peer.address": "10.0.0.7"}, "new.example"),
        ({"network.peer.address": "10.0.0.7"}, "10.0.0.7"),
    ],
)
def test_calls_to_what_sends_no_spans_are_external(attributes: dict[str, str], server: str) -> None:
    assert external(Span("web", 1), Span("web", 2, 1, CLIENT, attributes=attributes)) == {
        ("web", server, "external"): (1, 0)
    }
    failed = Span("web", 2, 1, CLIENT, attributes=attributes | {"error": "true"})
    assert external(failed) == {("web", server, "external"): (0, 0)}


def test_a_peer_that_is_a_pods_address_or_a_services_name_is_that_service() -> None:
    node = {"node_id": "sidecar~10.0.0.7~b-0.shop~shop.svc.cluster.local", "component": "proxy"}
    spans = [
        Span("b", 1, attributes=node),
        Span("a", 2, kind=CLIENT, attributes={"network.peer.address": "10.0.0.7"}),
        Span("a", 3, kind=CLIENT, attributes={"server.address": "b:8080"}),
    ]
    assert external(*spans) == {("a", "b", "service"): (2, 0)}


def test_a_service_that_calls_itself_without_an_instance_is_an_edge() -> None:
    assert external(Span("a", 1, kind=CLIENT), Span("a", 2, 1, SERVER), Span("a", 3, 1, INTERNAL)) == {
        ("a", "a", "service"): (1, 0)
    }  # fmt: skip


NOBODYS = ["PassthroughCluster", "BlackHoleCluster"]


def through(cluster: str, number: int, flags: str = "-", code: str = "200") -> Span:
    """A sidecar's call to an address that no service is known of."""
    attributes = {
        "component": "proxy",
        "upstream_cluster": cluster,
        "upstream_cluster.name": cluster,
        "response_flags": flags,
        "http.status_code": code,
        "http.url": "http://10.9.9.9/",
    }
    return Span("web", number, 1, CLIENT, attributes=attributes)


@pytest.mark.parametrize("cluster", NOBODYS)
def test_clusters_that_no_service_is_known_of_are_external_nodes_of_their_names(cluster: str) -> None:
    spans = [
        Span("web", 1),
        through(cluster, 2),
        through(cluster, 3, "UF,URX", "503"),
        through(cluster, 4, "UC", "503"),
        through(cluster, 5, "UH", "503"),
        through(cluster, 6, "-", "502"),
    ]
    emitted = rows(process(make_log((0, spans)), ONE), "edges_10s")
    found = [row for row in emitted if row["connection"] != "outside"]
    assert {(row["client_service"], row["server_service"], row["server_namespace"]) for row in found} == {
        ("web", cluster, "")
    }
    assert {
        (row["response_flags"], row["connection"]): tuple(
            row[name] for name in ("calls", "unsent", "unanswered", "errors")
        )
        for row in found
    } == {
        ("", "external"): (2, 0, 0, 1),
        ("UF,URX", "external"): (0, 0, 1, 1),
        ("UC", "external"): (0, 0, 1, 1),
        ("UH", "external"): (0, 1, 0, 1),
    }


def test_both_are_nodes_of_their_own_and_no_services_that_a_pod_is() -> None:
    """Also where the address that was called is that of a pod which sends spans."""
    pod = {"node_id": "sidecar~10.9.9.9~b-0.shop~shop.svc.cluster.local", "component": "proxy"}
    spans = [Span("web", 1), Span("b", 9, attributes=pod)]
    spans += [through(cluster, number) for number, cluster in enumerate(NOBODYS, 2)]
    assert external(*spans) == {("web", cluster, "external"): (1, 0) for cluster in NOBODYS}


@pytest.mark.parametrize(
    "attributes", [{"peer.service": "b"}, {"server.address": "10.0.0.9", "error": "true"}]
)
def test_an_external_call_is_taken_back_when_its_child_comes_later(attributes: dict[str, str]) -> None:
    """The pane of the call is decided 3 s after it; the callee's span comes at 5 s."""
    call = Span("web", 1, kind=CLIENT, attributes=attributes)
    seconds = ProcessorSettings(partitions=1, pane=timedelta(seconds=1), wait=2)
    alone, late = (
        {key: n for key, n in sums(process(make_log((0, [call]), *children), seconds)).items() if n}
        for children in ((), ((5, [Span("b", 2, 1)]),))
    )
    failed = "error" in attributes
    server = attributes.get("peer.service") or attributes["server.address"]
    counted = "unanswered" if failed else "calls"
    errors = {("web", server, "external", "errors"): 1} if failed else {}
    assert alone == {("web", server, "external", counted): 1, **errors}
    errors = {("web", "b", "service", "errors"): 1} if failed else {}
    assert late == {("web", "b", "service", "calls"): 1, **errors}


def sums(emits: list[Emit]) -> dict[tuple[object, ...], int]:
    """(client, server, connection, count) to its sum, modulo 2^64 as the database adds."""
    found: Counter[tuple[object, ...]] = Counter()
    for row in rows(emits, "edges_10s"):
        for kind in ("calls", "unsent", "unanswered", "errors"):
            key = (row["client_service"], row["server_service"], row["connection"], kind)
            found[key] += row[kind]  # type: ignore[operator]  # a count
    return {key: count % (1 << 64) for key, count in found.items() if key[0] != "outside"}
