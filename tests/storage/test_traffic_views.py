"""The views to show: plain types, each request once, filters that reach the tables."""

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from schemas.histogram import bucket_of
from schemas.units import NS_PER_S
from schemas.watermark import Watermark
from storage.jobs.rollups import RollUps
from storage.migrate import migrate
from storage.settings import StorageSettings
from tests.support.stores import SHORT, Place, block, opened, scalar, write

HOUR_S = 3600
HOUR = int(time.time()) // HOUR_S * HOUR_S
MS = 1_000_000
SERVICE = ("cluster", "namespace", "service", "version")
VIEWS = {
    "service_traffic": ("slot", *SERVICE),
    "edge_traffic": (
        "slot",
        *(f"{end}_{name}" for end in ("client", "server") for name in SERVICE),
        "connection",
    ),
    "mesh_propagation": ("slot", *SERVICE[:3]),
    "mesh_overhead": ("slot", *(f"{end}_{name}" for end in ("client", "server") for name in SERVICE[:3])),
}
"""Each view with the columns that a row of it is the only one of."""
ENTERED, INNER = 1, 2


@pytest.fixture
def settings(place: Place) -> StorageSettings:
    return place.settings()


@pytest.fixture
def client(settings: StorageSettings) -> Iterator[Client]:
    with opened(settings) as opened_client:
        yield opened_client


def red(operation: str, requests: int, **more: Any) -> dict[str, Any]:
    return {
        "slot": HOUR,
        "service": "shop",
        "operation": operation,
        "kind": "Server",
        "entered": ENTERED,
        "requests": requests,
        "duration_ns_sum": requests * MS,
        "duration_ns_max": MS,
        "duration_histogram": [(bucket_of(MS), requests)],
        "requests_estimated": float(requests),
    } | more


def edge(**more: Any) -> dict[str, Any]:
    return {
        "slot": HOUR,
        "client_service": "front",
        "server_service": "shop",
        "connection": "service",
        "client_histogram": [(bucket_of(3 * MS), more.get("calls", 0))],
    } | more


def rows(client: Client, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in client.query(sql).result_rows]


def test_types_are_those_that_any_client_reads(client: Client) -> None:
    plain = {"DateTime('UTC')", "String", "UInt64", "Int64", "Float64", "Map(Int16, UInt64)"}
    for view, keys in VIEWS.items():
        types = {str(row[0]): str(row[1]) for row in client.query(f"DESCRIBE {view}").result_rows}
        assert set(types.values()) <= plain, (view, types)
        assert set(keys) < set(types), view


def test_a_request_counts_where_it_enters_and_what_is_apart_stands_beside(
    client: Client, settings: StorageSettings
) -> None:
    more = {"requests_estimated": 700.0, "errors": 2, "errors_estimated": 200.0}
    sizes = {"request_bytes": 70, "response_bytes": 7000, "duration_ns_max": 5 * MS, "exemplar_trace_id": "b"}
    write(
        settings,
        block(
            "red_10s",
            [
                red("GET /", 7, **more, **sizes),
                red("GET /cart", 3, exemplar_trace_id="a"),
                red("handler", 7, entered=INNER, errors=2, duration_ns_max=9 * MS, exemplar_trace_id="z"),
                red("SELECT", 20, kind="Internal", entered=INNER),
                red("GET other", 11, kind="Client", entered=INNER),
                red("of before", 5, entered=0, requests_estimated=0.0),
                red("of before", 50, entered=0, kind="Client"),
                red("GET /", 13, apart="injected", errors=13, duration_ns_max=99 * MS, exemplar_trace_id="y"),
                red("GET /", 17, apart="mirrored", errors=1, request_bytes=1),
                red("GET /", 2, version="v2", slot=HOUR + 10),
            ],
        ),
    )
    names = (
        "version, requests, errors, requests_estimated, errors_estimated, injected, mirrored, request_bytes,"
        " response_bytes, duration_ns_sum, duration_ns_max, exemplar_trace_id"
    )
    assert rows(client, f"SELECT {names} FROM service_traffic ORDER BY slot") == [
        ("", 15, 2, 708.0, 200.0, 13, 17, 70, 7000, 15 * MS, 5 * MS, "b"),
        ("v2", 2, 0, 2.0, 0.0, 0, 0, 0, 0, 2 * MS, MS, ""),
    ]
    assert rows(client, "SELECT service, sum(requests) FROM service_traffic GROUP BY service") == [
        ("shop", 17)
    ]
    assert scalar(client, "SELECT duration_histogram FROM service_traffic WHERE version = ''") == {
        bucket_of(MS): 15
    }
    inner = "SELECT operation, sum(requests) FROM red WHERE entry = 0 AND kind = 'Server' GROUP BY operation"
    assert rows(client, inner) == [("handler", 7)]


def test_attempts_are_what_arrived_and_what_did_not(client: Client, settings: StorageSettings) -> None:
    back = 2**64
    write(
        settings,
        block(
            "edges_10s",
            [
                edge(
                    calls=5,
                    errors=1,
                    retries=1,
                    calls_estimated=50.0,
                    overhead_histogram=[(bucket_of(MS), 5)],
                ),
                edge(unsent=4, errors=4, response_flags="UO"),
                edge(unanswered=3, errors=3, response_flags="UF", protocol="grpc"),
                edge(calls=6, errors=6, response_flags="FI", apart="injected"),
                edge(calls=2, unanswered=1, apart="mirrored"),
                edge(
                    server_service="db", connection="database", calls=8, request_bytes=80, response_bytes=800
                ),
                edge(server_service="late", connection="external", calls=1, errors=1, request_bytes=9),
            ],
        ),
        block(
            "edges_10s",
            [
                edge(
                    server_service="late",
                    connection="external",
                    calls=back - 1,
                    errors=back - 1,
                    request_bytes=back - 9,
                    client_histogram=[(bucket_of(3 * MS), back - 1)],
                ),
                edge(server_service="carts", calls=1),
            ],
            2,
        ),
    )
    names = "attempts, calls, unsent, unanswered, errors, retries, calls_estimated, injected, mirrored"
    assert rows(client, f"SELECT server_service, {names} FROM edge_traffic ORDER BY server_service") == [
        ("carts", 1, 1, 0, 0, 0, 0, 1.0, 0, 0),
        ("db", 8, 8, 0, 0, 0, 0, 8.0, 0, 0),
        ("shop", 12, 5, 4, 3, 8, 1, 50.0, 6, 3),
    ]
    columns = "request_bytes, response_bytes, client_histogram, overhead_histogram"
    assert rows(client, f"SELECT {columns} FROM edge_traffic WHERE server_service = 'shop'") == [
        (0, 0, {bucket_of(3 * MS): 5}, {bucket_of(MS): 5})
    ]
    assert rows(client, f"SELECT {columns} FROM edge_traffic WHERE connection = 'database'") == [
        (80, 800, {bucket_of(3 * MS): 8}, {})
    ]


def test_rows_of_a_view_are_one_for_each_key(client: Client, settings: StorageSettings) -> None:
    """Whatever other keys (operations, flags, protocols) the rows below differ in, merged or not."""
    for pane in (1, 2):
        write(
            settings,
            block(
                "red_10s",
                [
                    red(
                        operation,
                        1,
                        response_flags=flags,
                        protocol=protocol,
                        cluster=cluster,
                        roots=1,
                        kind=kind,
                    )
                    for operation in ("a", "b")
                    for flags in ("", "DC")
                    for protocol in ("http", "grpc")
                    for cluster in ("east", "west")
                    for kind in ("Server", "Client")
                ],
                pane,
            ),
            block(
                "edges_10s",
                [
                    edge(calls=1, response_flags=flags, upstream_cluster=up, overhead_histogram=[(1, 1)])
                    for flags in ("", "DC")
                    for up in ("a", "b")
                ],
                pane,
            ),
        )
    for view, keys in VIEWS.items():
        counts = rows(client, f"SELECT count(), uniqExact({', '.join(keys)}) FROM {view}")
        assert counts[0][0] == counts[0][1], view
    assert scalar(client, "SELECT count() FROM service_traffic") == 2
    assert scalar(client, "SELECT count() FROM edge_traffic") == 1


def test_services_that_do_not_hand_trace_headers_on_are_named(
    client: Client, settings: StorageSettings
) -> None:
    call: dict[str, Any] = {"kind": "Client", "entered": INNER}
    write(
        settings,
        block(
            "red_10s",
            [
                red("ingress", 30, service="forgets"),
                red("ingress", 30, service="forgets", slot=HOUR + 1800),
                red("egress a", 20, service="forgets", roots=15, exemplar_trace_id="f", **call),
                red("publish", 5, service="forgets", roots=5, kind="Producer", entered=INNER),
                red("ingress", 10, service="hands-on", roots=10),
                red("egress a", 10, service="hands-on", **call),
                red("egress b", 40, service="no-ingress", roots=40, **call),
                red("from outside", 50, service="gateway", kind="Client", roots=50),
                red("ingress", 8, service="spawns", roots=8),
                red("egress b", 6, service="spawns", roots=6),
                red("router b egress", 6, service="spawns", **call),
            ],
        ),
    )
    found = rows(
        client,
        "SELECT service, requests, egress, egress_roots, share, exemplar_trace_id, advice FROM mesh_propagation"
        f" WHERE slot >= toDateTime({HOUR}) ORDER BY service",
    )
    assert [row[:6] for row in found] == [
        ("forgets", 60, 25, 20, 0.8, "f"),
        ("spawns", 8, 12, 6, 0.5, ""),
    ]
    for said in ("20 of 25 outgoing calls of forgets", "traceparent", "b3", "x-request-id", "60 requests"):
        assert said in found[0][6]


def test_the_cost_of_the_mesh_is_quantiles_of_each_edge(client: Client, settings: StorageSettings) -> None:
    def overhead(*ms_and_calls: tuple[int, int]) -> list[tuple[int, int]]:
        return [(bucket_of(ms * MS), calls) for ms, calls in ms_and_calls]

    write(
        settings,
        block(
            "edges_10s",
            [
                edge(calls=90, overhead_histogram=overhead((1, 90))),
                edge(calls=10, overhead_histogram=overhead((8, 10)), slot=HOUR + 20, client_version="v2"),
                edge(calls=100, overhead_histogram=overhead((70, 100)), apart="injected"),
                edge(calls=5, server_service="db", connection="database"),
                edge(unsent=5, server_service="nowhere", connection="unknown"),
            ],
        ),
    )
    ((service, calls, p50, p99),) = rows(
        client,
        f"SELECT server_service, calls, p50_ms, p99_ms FROM mesh_overhead WHERE slot >= toDateTime({HOUR})",
    )
    assert (service, calls) == ("shop", 100)
    assert p50 == pytest.approx(1, rel=0.03)
    assert p99 == pytest.approx(8, rel=0.03)


@pytest.mark.parametrize("view", VIEWS)
def test_filters_reach_the_tables(client: Client, settings: StorageSettings, view: str) -> None:
    """A time and a name are looked up in the keys of a table's first level: nothing else of it is read."""
    table, name, row = "red_10s", "service", red("egress a", 1, roots=1)
    if "client_service" in VIEWS[view]:
        table, name, row = "edges_10s", "client_service", edge(calls=1, overhead_histogram=[(1, 1)])
    days = [block(table, [row | {"slot": HOUR - ago * 24 * HOUR_S}], ago + 1) for ago in range(4)]
    write(settings, *days)
    where = f"slot >= toDateTime({HOUR}) AND {name} = 'x'"
    plan = "\n".join(
        row[0] for row in rows(client, f"EXPLAIN indexes = 1 SELECT * FROM {view} WHERE {where}")
    )
    _, _, first = plan.partition(f"{table})")
    assert re.findall(r"Parts: \d/\d", first.partition("PrimaryKey")[0])[:1] == ["Parts: 1/4"]
    condition = re.search(r"PrimaryKey.*?Condition: (.*?)\n", first, re.DOTALL)
    assert condition
    assert f"toStartOfHour(slot) in [{HOUR}, +Inf)" in condition[1]
    assert f"CAST({name}, 'String') in ['x', 'x']" in condition[1]


def test_hours_that_were_rolled_up_say_the_same(client: Client, settings: StorageSettings) -> None:
    short = settings.model_copy(update=SHORT)
    old = HOUR - 5 * HOUR_S
    calls = {"calls": 2, "errors": 1, "overhead_histogram": [(bucket_of(MS), 2)]}
    reds = [
        red("ingress", 3, slot=old + at, apart=apart) for at in (0, 70, 3590) for apart in ("", "mirrored")
    ]
    reds += [red("egress", 2, slot=old + at, kind="Client", entered=INNER, roots=1) for at in (0, 600)]
    write(
        settings,
        block("red_10s", reds),
        block("edges_10s", [edge(slot=old + at, **calls) for at in (0, 70, 3590)]),
    )
    asked = {
        "service_traffic": "SELECT service, sum(requests), sum(mirrored), max(duration_ns_max) FROM {} GROUP BY service",
        "edge_traffic": "SELECT server_service, sum(attempts), sum(errors), sumMap(client_histogram) FROM {} GROUP BY 1",
        "mesh_propagation": "SELECT * FROM {}",
        "mesh_overhead": "SELECT * FROM {}",
    }
    before = {view: rows(client, sql.format(view)) for view, sql in asked.items()}
    assert all(before.values())
    migrate(client, short)
    watermark = Watermark(HOUR * NS_PER_S, HOUR * NS_PER_S)
    assert list(RollUps(client, short).run(watermark))
    assert scalar(client, "SELECT red_1m_until FROM rollup_bounds").timestamp() > old
    client.command("TRUNCATE TABLE red_10s")
    client.command("TRUNCATE TABLE edges_10s")
    assert {view: rows(client, sql.format(view)) for view, sql in asked.items()} == before
