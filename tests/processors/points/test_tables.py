"""Tables of counters: made fleets against the truth."""

from pathlib import Path

from schemas.histogram import UPPER_NS, bucket_of
from tests.processors.points.counters import (
    CUMULATIVE,
    DELTA,
    ENVOY,
    T0_S,
    Number,
    balance,
    payload,
    rows,
    settings,
    summed,
)

CAPTURE = Path(__file__).parents[2] / "data" / "envoy" / "metrics.bin.gz"
RQ = "cluster.upstream_rq"
PRODUCT = "outbound|80|v1|product.shop.svc.cluster.local"
IN_MANAGER = {"envoy.http_conn_manager_prefix": "inbound_0.0.0.0_80"}


def envoy(service: str, instance: str = "a", **more: str) -> dict[str, str]:
    return {
        **ENVOY,
        "service.name": service,
        "service.namespace": "shop",
        "service.instance.id": instance,
        **more,
    }


def code(cluster: str, code: str = "200") -> dict[str, str]:
    return {"envoy.cluster_name": cluster, "envoy.response_code": code}


def test_families_that_are_off_and_what_sdks_send_are_stored_as_points() -> None:
    numbers = [
        Number(RQ, code("b"), 5),
        Number("cluster.internal.upstream_rq", code("b"), 5),
        Number("server.live", {}, 1, gauge=True),
    ]
    sdk = payload(
        {"service.name": "shop"}, [Number("http.server.request.count", {}, 3), Number("m", {}, 1, gauge=True)]
    )
    log = [(1.0, payload(envoy("a"), [*numbers, Number("listener.x", {}, 2)])), (1.0, sdk)]
    found = rows(log)
    assert balance(found) == {"received": 6, "aggregated": 2, "left_out": 2, "kept": 2, "stored": 2}
    assert found["traffic_10s"]
    found = rows(log, settings(metrics={"families": ["proxies"]}))
    assert balance(found)["aggregated"] == 1
    assert not found["traffic_10s"]
    names = {row["MetricName"] for table, of in found.items() if table.startswith("otel") for row in of}
    assert RQ in names


ISTIO = {
    "source_canonical_service": "a",
    "source_workload_namespace": "shop",
    "source_cluster": "c1",
    "source_canonical_revision": "v1",
    "destination_canonical_service": "b",
    "destination_workload_namespace": "pay",
    "destination_cluster": "c1",
    "destination_canonical_revision": "v2",
    "request_protocol": "http",
    "response_code": "200",
    "response_flags": "-",
}


def istio(**labels: str) -> dict[str, str]:
    return {**ISTIO, **labels}


def test_both_reporters_of_istio_are_two_sides_of_a_call() -> None:
    sent = payload(
        envoy("a.shop"),
        [
            Number(
                "istio_requests_total", istio(reporter="source", connection_security_policy="unknown"), 7, 1
            ),
            Number(
                "istio_requests_total",
                istio(reporter="source", response_code="503", response_flags="UO"),
                2,
                1,
            ),
        ],
    )
    got = payload(
        envoy("b.pay"),
        [
            Number(
                "istio_requests_total",
                istio(reporter="destination", connection_security_policy="mutual_tls"),
                6,
                1,
            ),
            Number(
                "istio_requests_total",
                istio(reporter="destination", request_protocol="grpc", grpc_response_status="13"),
                3,
                1,
            ),
            Number(
                "istio_requests_total",
                istio(reporter="destination", request_protocol="grpc", grpc_response_status="5"),
                4,
                1,
            ),
            Number(
                "istio_request_bytes",
                istio(reporter="destination"),
                0,
                1,
                bounds=(1.0,),
                counts=(1, 5),
                sum=4200,
            ),
            Number(
                "istio_tcp_connections_opened_total",
                istio(reporter="destination", request_protocol="tcp"),
                9,
                1,
            ),
        ],
    )
    found = rows([(1, sent), (2, got)])["traffic_10s"]
    by = (
        "side",
        "source",
        "service",
        "namespace",
        "version",
        "peer_service",
        "peer_namespace",
        "protocol",
        "response_code",
        "response_flags",
        "security",
    )
    client, server = (
        ("client", "istio", "a", "shop", "v1", "b", "pay"),
        ("server", "istio", "b", "pay", "v2", "a", "shop"),
    )
    assert summed(found, by, "requests") == {
        (*client, "http", "200", "", "unknown"): 7,
        (*client, "http", "503", "UO", "unknown"): 2,
        (*server, "http", "200", "", "mutual_tls"): 6,
        (*server, "grpc", "200", "", "unknown"): 7,
    }
    assert summed(found, ("side", "protocol"), "errors") == {("client", "http"): 2, ("server", "grpc"): 3}
    assert summed(found, ("side",), "request_bytes") == {("server",): 4200}
    assert summed(found, ("side", "protocol"), "tcp_opened") == {("server", "tcp"): 9}


def test_who_it_is_where_resources_say_nothing() -> None:
    nobody = {"service.name": "kubernetes-pods"}
    tags = {"service_istio_io_canonical_name": "cart", "namespace": "shop", "pod": "cart-6d4cf56db6-x2x4z"}
    log = [
        (1, payload(nobody, [Number("istio_requests_total", istio(reporter="source"), 5, 1)])),
        (
            1,
            payload(
                nobody,
                [
                    Number(
                        "envoy_cluster_upstream_rq",
                        {**tags, "envoy_cluster_name": PRODUCT, "envoy_response_code": "200"},
                        4,
                        1,
                    )
                ],
            ),
        ),
        (
            1,
            payload(
                {},
                [
                    Number(
                        "container_memory_working_set_bytes",
                        {"pod": tags["pod"], "namespace": "shop", "container": "istio-proxy"},
                        7e6,
                        1,
                        gauge=True,
                    )
                ],
            ),
        ),
        (
            1,
            payload(
                {},
                [
                    Number(
                        "container_memory_working_set_bytes",
                        {"pod": "x", "container": "app"},
                        7e6,
                        1,
                        gauge=True,
                    )
                ],
            ),
        ),
    ]
    found = rows(log)
    by = ("namespace", "service", "peer_service", "peer_namespace", "peer_version", "source")
    assert summed(found["traffic_10s"], by, "requests") == {
        ("shop", "a", "b", "pay", "v2", "istio"): 5,
        ("shop", "cart", "product", "shop", "v1", "envoy"): 4,
    }
    (proxy,) = found["proxies_10s"]
    said = {
        name: proxy[name]
        for name in ("namespace", "service", "pod", "instance", "kind", "memory_working_set_bytes")
    }
    assert said == {
        "namespace": "shop",
        "service": "cart",
        "pod": tags["pod"],
        "instance": tags["pod"],
        "kind": "sidecar",
        "memory_working_set_bytes": 7e6,
    }
    assert balance(found) == {"received": 4, "aggregated": 3, "kept": 1, "stored": 1}


def test_of_each_side_one_family_counts_requests() -> None:
    numbers = [
        Number(RQ, code(PRODUCT), 5, 1),
        Number(RQ, code("inbound|8080||"), 6, 1),
        Number("http.downstream_rq_xx", {**IN_MANAGER, "envoy.response_code_class": "2"}, 6, 1),
        Number(
            "http.downstream_rq_xx",
            {"envoy.http_conn_manager_prefix": "outbound_0.0.0.0_80", "envoy.response_code_class": "2"},
            5,
            1,
        ),
        Number(
            "http.downstream_rq_xx",
            {"envoy.http_conn_manager_prefix": "admin", "envoy.response_code_class": "2"},
            99,
            1,
        ),
    ]
    found = rows([(1, payload(envoy("a"), numbers))])
    assert summed(found["traffic_10s"], ("side", "service", "peer_service"), "requests") == {
        ("client", "a", "product"): 5,
        ("server", "a", ""): 6,
    }
    assert balance(found) == {"received": 5, "aggregated": 2, "left_out": 3}
    gateway = envoy("gate", node_id="router~10.0.0.1~gate-1.istio-system~istio-system.svc.cluster.local")
    found = rows([(1, payload(gateway, [numbers[3]]))])
    assert summed(found["traffic_10s"], ("side", "service"), "requests") == {("server", "gate"): 5}


def test_two_replicas_a_restart_and_both_temporalities() -> None:
    def at(
        time_s: float, instance: str, value: int, start_s: float = 0, temporality: int = CUMULATIVE
    ) -> tuple[float, bytes]:
        uptime = Number(
            "server.uptime", {}, time_s - (start_s if temporality == CUMULATIVE else 0), time_s, gauge=True
        )
        number = Number(RQ, code(PRODUCT), value, time_s, start_s, temporality)
        return time_s, payload(envoy("a", instance), [number, uptime])

    log = [
        at(10, "one", 5),
        at(11, "two", 100, temporality=DELTA),
        at(20, "one", 9),
        at(21, "two", 1, 11, DELTA),
        at(30, "one", 4, 25),  # restarted: 4 more
        at(40, "one", 6, 25),
        at(41, "two", 2, 21, DELTA),
        at(41, "two", 2, 21, DELTA),  # sent again
    ]
    found = rows(log)
    assert summed(found["traffic_10s"], ("slot",), "requests") == {
        (T0_S + 10,): 105,
        (T0_S + 20,): 5,
        (T0_S + 30,): 4,
        (T0_S + 40,): 2 + 2,
    }
    assert summed(found["proxies_10s"], ("instance", "slot"), "restarts") == {("one", T0_S + 30): 1}
    assert {row["instance"] for row in found["proxies_10s"]} == {"one", "two"}
    assert balance(found)["duplicate"] == 2


def test_a_counter_of_unknown_past_adds_nothing_and_is_counted() -> None:
    number = Number(RQ, code(PRODUCT), 5_000, 1, start_s=-90_000)
    found = rows([(1, payload(envoy("a"), [number]))])
    assert not found["traffic_10s"]
    assert balance(found) == {"received": 1, "aggregated": 1, "unknown": 1}


def test_durations_stay_between_the_bounds_of_their_buckets() -> None:
    bounds = (0.5, 1.0, 5.0, 10.0, 25.0, 250.0)
    counts = (3, 0, 7, 1000, 1, 20, 2)
    number = Number(
        "istio_request_duration_milliseconds",
        istio(reporter="destination"),
        0,
        1,
        bounds=bounds,
        counts=counts,
    )
    (row,) = rows([(1, payload(envoy("b"), [number]))])["traffic_10s"]
    found = row["duration_histogram"]
    assert sum(found.values()) == sum(counts)
    low = 0.0
    for high, count in zip((*bounds, 250.0), counts, strict=True):
        inner = {
            bucket
            for bucket in found
            if bucket_of(int(low * 1e6) + 1) <= bucket <= bucket_of(int(high * 1e6))
        }
        if high > low:
            assert sum(found[bucket] for bucket in inner) >= count
        low = high
    assert found[bucket_of(250_000_000)] >= 2, "what is over the last bound stands at it"
    middle = sum(count for bucket, count in found.items() if 5_000_000 < UPPER_NS[bucket + 1] <= 7_500_000)
    assert abs(middle - 500) < 70, "evenly within a bucket, as histogram_quantile has it"


def test_proxies_control_plane_and_certificates() -> None:
    node = "sidecar~10.0.0.1~a-1.shop~shop.svc.cluster.local"
    own = [
        Number("server.memory_allocated", {}, 5e6, 1, gauge=True),
        Number("control_plane.connected_state", {}, 0, 1, gauge=True),
        Number("tracing.opentelemetry.spans_sent", {}, 7, 1),
        Number(
            "listener.ssl.certificate.expiration_unix_time_seconds",
            {"envoy.listener_address": "l", "envoy.tls_certificate": "cert"},
            T0_S + 86_400,
            1,
            gauge=True,
        ),
    ]
    rotated = own[3]._replace(value=T0_S + 2 * 86_400, time_s=31)
    istiod = {"service.name": "istiod", "service.instance.id": "i"}
    control = [
        Number("pilot_xds_pushes", {"type": "cds"}, 12, 1),
        Number("pilot_xds", {"version": "1.30"}, 40, 1, gauge=True),
        Number("pilot_proxy_convergence_time", {}, 0, 1, bounds=(0.1, 0.5), counts=(0, 4, 0)),
        Number("citadel_server_root_cert_expiry_timestamp", {}, T0_S + 999, 1, gauge=True),
        Number("cert_expiry_seconds", {"resource_name": "default"}, -60, 1, gauge=True),
    ]
    found = rows(
        [
            (1, payload(envoy("a", node_id=node), own)),
            (2, payload(istiod, control)),
            (31, payload(envoy("a", node_id=node), [rotated])),
        ]
    )
    (proxy,) = found["proxies_10s"]
    assert (proxy["kind"], proxy["memory_allocated_bytes"], proxy["xds_connected"], proxy["spans_sent"]) == (
        "sidecar",
        5_000_000,
        0,
        7,
    )
    by_metric = {(row["metric"], row["kind"]): row for row in found["control_plane_10s"]}
    pushes = by_metric["pilot_xds_pushes", "increment"]
    assert (pushes["increment"], pushes["labels"], pushes["service"], pushes["instance"]) == (
        12,
        {"type": "cds"},
        "istiod",
        "i",
    )
    assert by_metric["pilot_xds", "value"]["value"] == 40
    times = by_metric["pilot_proxy_convergence_time", "histogram"]["histogram"]
    assert sum(times.values()) == 4
    assert all(bucket_of(100_000_001) <= bucket <= bucket_of(500_000_000) for bucket in times)
    certificates = [
        (row["service"], row["kind"], row["not_after"] - T0_S, row["lifetime_s"])
        for row in found["certificates"]
    ]
    assert sorted(certificates) == [
        ("a", "leaf", 86_400, 0),
        ("a", "leaf", 2 * 86_400, 2 * 86_400 - 31),
        ("istiod", "leaf", -60, 0),
        ("istiod", "root", 999, 0),
    ]
    balance(found)
