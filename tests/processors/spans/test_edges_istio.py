"""Who calls whom where Istio names services in tags of spans: the capture of ``tests.support.istio``."""

from collections import Counter

import pytest

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
