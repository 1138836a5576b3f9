"""The views that answer about the mesh, on made rows with the truth beside them."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from schemas.counters import UNSAID
from schemas.histogram import bucket_of
from storage.migrate import migrate
from storage.settings import StorageSettings
from tests.support.stores import block, opened, scalar, settings_for, write

NOW = int(time.time())
HOUR = NOW // 3600 * 3600
MS = 1_000_000
DAY_S = 86400
SHOP = {"slot": HOUR, "cluster": "east", "namespace": "shop"}
VIEWS = (
    "reconciliation",
    "mesh_golden",
    "mesh_resilience",
    "mesh_control_plane",
    "mesh_certificates",
    "mesh_mtls",
    "mesh_config",
    "mesh_versions",
)


def traffic(service: str, requests: int, **more: Any) -> dict[str, Any]:
    took = [(bucket_of(more.pop("ms", 1) * MS), requests)]
    given = {"side": "server", "source": "envoy", "response_code": "2xx", "security": "unknown"}
    return SHOP | given | {"service": service, "requests": requests, "duration_histogram": took} | more


def upstream(service: str, name: str, **more: Any) -> dict[str, Any]:
    unsaid = (
        "healthy_hosts",
        "remaining_connections",
        "remaining_requests",
        "remaining_pending",
        "remaining_retries",
    )
    return SHOP | dict.fromkeys(unsaid, UNSAID) | {"service": service, "upstream": name} | more


def proxy(service: str, instance: str, **more: Any) -> dict[str, Any]:
    return SHOP | {"service": service, "instance": instance, "xds_connected": UNSAID} | more


def istiod(cluster: str, metric: str, **more: Any) -> dict[str, Any]:
    kind = next(kind for kind in ("increment", "value", "histogram") if kind in more)
    return (
        SHOP
        | {"cluster": cluster, "service": "istiod", "instance": "i", "metric": metric, "kind": kind}
        | more
    )


def certificate(name: str, left_s: int, lifetime_s: int = 0, **more: Any) -> dict[str, Any]:
    ends = {"not_after": NOW + left_s, "lifetime_s": lifetime_s, "first_seen": NOW - 60, "log_time": NOW - 60}
    return {"service": "cart", "kind": "leaf", "name": name} | ends | more


def spans(service: str, requests: int, **more: Any) -> dict[str, Any]:
    took = [(bucket_of(40 * MS), requests)]
    given = {
        "kind": "Server",
        "entered": 1,
        "requests_estimated": 100.0 * requests,
        "duration_histogram": took,
    }
    return SHOP | {"service": service, "requests": requests} | given | more


TRAFFIC = [
    traffic(
        "cart",
        90,
        source="istio",
        response_code="200",
        security="mutual_tls",
        peer_service="front",
        version="v1",
        tcp_opened=9,
    ),
    traffic(
        "cart",
        10,
        source="istio",
        response_code="503",
        errors=10,
        security="none",
        peer_service="cron",
        version="v2",
        ms=80,
    ),
    traffic("cart", 97, version="v1"),
    traffic("pay", 50, errors=1, slot=HOUR + 20, tcp_opened=10, tls_opened=4),
    traffic("pay", 10, response_code="4xx", slot=HOUR + 40),
    traffic("front", 100, side="client", peer_service="cart", peer_namespace="shop", tcp_opened=5),
    traffic(
        "front",
        7,
        side="client",
        source="istio",
        response_code="0",
        errors=7,
        response_flags="UF,URX",
        peer_service="cart",
    ),
    traffic("front", 3, side="client", source="istio", response_code="404", errors=3, response_flags="NR"),
]
UPSTREAMS = [
    upstream(
        "front",
        "cart",
        attempts=100,
        retries=5,
        retry_success=4,
        peer_service="cart",
        peer_namespace="shop",
        tls_handshakes=5,
        hosts=3,
        healthy_hosts=3,
    ),
    upstream(
        "front",
        "cart",
        attempts=20,
        retries=1,
        peer_service="cart",
        peer_namespace="shop",
        hosts=4,
        healthy_hosts=2,
        slot=HOUR + 10,
        resets_sent=2,
        resets_received=1,
    ),
    upstream("front", "dead", attempts=4, hosts=2, healthy_hosts=0),
    upstream("pay", "full", attempts=50, pending_overflow=3, connection_overflow=2, pending_requests=8),
    upstream("pay", "slow", attempts=50, timeouts=5),
    upstream("pay", "calm", attempts=50),
    upstream("pay", "BlackHoleCluster", attempts=2),
    upstream("pay", "PassthroughCluster", attempts=6),
]
PROXIES = [
    proxy("cart", "cart-1", version_number=7, cpu_s=1.5, memory_allocated_bytes=30),
    proxy("cart", "cart-2", version_number=8, cpu_s=0.5, memory_allocated_bytes=20, updates_rejected=2),
    proxy("pay", "pay-1", version_number=7, memory_working_set_bytes=99),
]
ISTIOD = [
    istiod("east", "pilot_xds", value=40.0),
    istiod("east", "pilot_xds_pushes", increment=12.0),
    istiod("east", "pilot_proxy_convergence_time", histogram=[(bucket_of(200 * MS), 10)]),
    istiod("west", "pilot_xds", value=40.0),
    istiod("west", "pilot_total_xds_rejects", increment=3.0),
    istiod("south", "pilot_xds", value=5.0),
    istiod("south", "pilot_xds", value=0.0, slot=HOUR + 30),
    istiod("north", "pilot_proxy_convergence_time", histogram=[(bucket_of(60_000 * MS), 10)]),
]
CERTIFICATES = [
    certificate("young", 20 * 3600, DAY_S),
    certificate("old", 6 * 3600, DAY_S),
    certificate("dying", 3600),
    certificate("gone", -10),
    certificate("month", 30 * DAY_S),
    certificate("week", 7 * DAY_S),
    certificate("renewed", 3600, DAY_S, log_time=NOW - 600),
    certificate("renewed", 23 * 3600, DAY_S),
]
SPANS = [
    spans("cart", 1, requests_estimated=80.0),
    spans("lonely", 5, errors=1, errors_estimated=100.0, status_class="5xx"),
    spans("lonely", 5, status_class="4xx", slot=HOUR + 10),
    spans("lonely", 50, apart="mirrored"),
]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> StorageSettings:
    folder: Path = tmp_path_factory.mktemp("mesh")
    return settings_for(folder)


@pytest.fixture(scope="module")
def client(settings: StorageSettings) -> Iterator[Client]:
    with opened(settings) as client:
        kept = {
            "ServiceName": "cart",
            "SpanKind": "Server",
            "SampleRate": 30,
            "LogTime": HOUR,
            "Timestamp": HOUR * 10**9,
        }
        names = [("k8s.cluster.name", "east"), ("service.namespace", "shop")]
        write(
            settings,
            block("traffic_10s", TRAFFIC),
            block("upstreams_10s", UPSTREAMS),
            block("proxies_10s", PROXIES),
            block("control_plane_10s", ISTIOD),
            block("certificates", CERTIFICATES),
            block("red_10s", SPANS),
            block("otel_traces", [kept | {"ResourceAttributes": names}] * 2),
        )
        yield client


def ask(client: Client, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in client.query(sql).result_rows]


def test_types_are_those_that_any_client_reads(client: Client) -> None:
    plain = {"DateTime('UTC')", "String", "UInt8", "UInt64", "Int64", "Float64", "Map(Int16, UInt64)"}
    for view in VIEWS:
        types = {str(row[0]): str(row[1]) for row in client.query(f"DESCRIBE {view}").result_rows}
        assert set(types.values()) <= plain, (view, types)


def test_golden_signals_are_of_the_best_source(client: Client) -> None:
    sql = (
        "SELECT service, source, requests, errors, client_errors, error_percent, pending_requests, overflow, proxy_cpu_s,"
        " proxy_memory_bytes, health FROM mesh_golden ORDER BY service"
    )
    assert ask(client, sql) == [
        ("cart", "istio", 100.0, 10.0, 0.0, 10.0, 0, 0, 2.0, 30, "failure"),
        ("front", "", 0.0, 0.0, 0.0, 0.0, 0, 0, 0.0, 0, "idle"),
        ("lonely", "spans", 1000.0, 100.0, 500.0, 10.0, 0, 0, 0.0, 0, "failure"),
        ("pay", "envoy", 60.0, 1.0, 10.0, 1.6667, 8, 5, 0.0, 99, "degraded"),
    ]
    ((p50, p95, p99),) = ask(client, "SELECT p50_ms, p95_ms, p99_ms FROM mesh_golden WHERE service = 'cart'")
    assert (p50, p95, p99) == (
        pytest.approx(1, rel=0.03),
        pytest.approx(80, rel=0.03),
        pytest.approx(80, rel=0.03),
    )


def test_reconciliation_has_all_counts_side_by_side(client: Client) -> None:
    sql = (
        "SELECT service, source, spans, spans_estimated, istio_requests, envoy_requests, kept_estimated, requests, missing,"
        " missing_kept FROM reconciliation ORDER BY service"
    )
    assert ask(client, sql) == [
        ("cart", "istio", 1, 80.0, 100, 97, 60.0, 100.0, 0.2, 0.4),
        ("lonely", "spans", 10, 1000.0, 0, 0, 0.0, 1000.0, 0.0, 1.0),
        ("pay", "envoy", 0, 0.0, 0, 60, 0.0, 60.0, 1.0, 1.0),
    ]


def test_resilience_is_by_upstream(client: Client) -> None:
    sql = (
        "SELECT upstream, attempts, retries, retry_success, resets, hosts, healthy_hosts, pending_overflow, connection_overflow,"
        " retry_percent, health FROM mesh_resilience WHERE NOT upstream LIKE '%Cluster' ORDER BY upstream"
    )
    assert ask(client, sql) == [
        ("calm", 50, 0, 0, 0, 0, -1, 0, 0, 0.0, "healthy"),
        ("cart", 120, 6, 4, 3, 4, 2, 0, 0, 5.0, "healthy"),
        ("dead", 4, 0, 0, 0, 2, 0, 0, 0, 0.0, "failure"),
        ("full", 50, 0, 0, 0, 0, -1, 3, 2, 0.0, "degraded"),
        ("slow", 50, 0, 0, 0, 0, -1, 0, 0, 0.0, "failure"),
    ]


def test_a_control_plane_says_why_it_is_not_healthy(client: Client) -> None:
    assert ask(
        client, "SELECT cluster, health, reason, connected FROM mesh_control_plane ORDER BY cluster"
    ) == [
        ("east", "healthy", "", 40.0),
        ("north", "degraded", "configuration takes long to reach proxies", 0.0),
        ("south", "down", "no proxy is connected", 0.0),
        ("west", "degraded", "proxies rejected configuration", 40.0),
    ]


def test_certificates_are_judged_by_the_share_of_their_life_that_is_left(client: Client) -> None:
    sql = "SELECT name, health, rotations, lifetime_s, round(days_left), share_left FROM mesh_certificates ORDER BY name"
    found = {row[0]: row[1:] for row in ask(client, sql)}
    assert {name: row[:4] for name, row in found.items()} == {
        "young": ("healthy", 0, DAY_S, 1.0),
        "old": ("degraded", 0, DAY_S, 0.0),
        "dying": ("failure", 0, DAY_S, 0.0),
        "gone": ("failure", 0, DAY_S, 0.0),
        "month": ("healthy", 0, 0, 30.0),
        "week": ("degraded", 0, 0, 7.0),
        "renewed": ("healthy", 1, DAY_S, 1.0),
    }
    assert found["old"][4] == pytest.approx(0.25, abs=0.02)
    assert found["month"][4] == -1


def test_who_sends_plain_text(client: Client) -> None:
    sql = (
        "SELECT side, service, peer_service, source, mtls_requests, plain_requests, tls_connections, share, plain_text"
        " FROM mesh_mtls ORDER BY ALL"
    )
    assert ask(client, sql) == [
        ("client", "cart", "front", "envoy", 0, 0, 5, 1.0, 0),
        ("server", "cart", "", "envoy", 0, 0, 0, -1.0, 0),
        ("server", "cart", "cron", "istio", 0, 10, 0, 0.0, 1),
        ("server", "cart", "front", "istio", 90, 0, 9, 1.0, 0),
        ("server", "pay", "", "envoy", 0, 0, 4, 0.4, 1),
    ]


def test_configuration_that_does_not_do_what_was_meant(client: Client) -> None:
    assert ask(client, "SELECT problem, service, detail, occurrences FROM mesh_config ORDER BY ALL") == [
        ("black hole", "pay", "BlackHoleCluster", 2.0),
        ("mixed versions", "cart", "7, 8", 2.0),
        ("no connection (UF)", "front", "cart", 7.0),
        ("no healthy upstream", "front", "dead", 2.0),
        ("no proxy", "lonely", "", 60.0),
        ("no route (NR)", "front", "", 3.0),
        ("passthrough", "pay", "PassthroughCluster", 6.0),
        ("updates rejected", "cart", "cart-2", 2.0),
    ]


def test_versions_stand_beside_each_other(client: Client) -> None:
    sql = "SELECT version, share, error_percent, health FROM mesh_versions WHERE service = 'cart' AND source = 'istio' ORDER BY version"
    assert ask(client, sql) == [("v1", 0.9, 0.0, "healthy"), ("v2", 0.1, 100.0, "failure")]
    p99 = scalar(client, "SELECT p99_ms FROM mesh_versions WHERE service = 'cart' AND version = 'v2'")
    assert p99 == pytest.approx(80, rel=0.03)


@pytest.mark.parametrize(
    ("counts", "health"),
    [
        ("0, 0, 0", "idle"),
        ("100, 0, 0", "healthy"),
        ("1000, 1, 0", "degraded"),
        ("100, 10, 0", "failure"),
        ("100, 0, 9", "healthy"),
        ("100, 0, 10", "degraded"),
        ("100, 0, 20", "failure"),
    ],
)
def test_the_rule_is_kialis(client: Client, counts: str, health: str) -> None:
    assert scalar(client, f"SELECT mesh_health({counts})") == health


def test_the_rule_is_set(client: Client, settings: StorageSettings) -> None:
    lenient = settings.health.model_copy(update={"failure_percent": 50.0, "degraded_percent": 5.0})
    migrate(client, settings.model_copy(update={"health": lenient}))
    try:
        asked = "SELECT mesh_health(100, 20, 0), mesh_health(100, 4, 0), mesh_health(100, 60, 0)"
        assert ask(client, asked) == [("degraded", "healthy", "failure")]
        assert scalar(client, "SELECT health FROM mesh_golden WHERE service = 'cart'") == "degraded"
    finally:
        migrate(client, settings)


def test_a_slot_is_a_condition_on_the_tables_keys(client: Client) -> None:
    plan = ask(
        client,
        f"EXPLAIN indexes = 1 SELECT * FROM mesh_resilience WHERE slot >= toDateTime({HOUR}) AND service = 'pay'",
    )
    text = "\n".join(str(row[0]) for row in plan)
    assert f"toStartOfHour(slot) in [{HOUR}, +Inf)" in text
    assert "CAST(service, 'String') in ['pay', 'pay']" in text
