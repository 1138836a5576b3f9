"""Edges and ledger of a running ``meshflow up`` against what is known of them."""

from tests.support.up import Up

SERVER = {
    "order_service": ("order-service", "v1"),
    "product_v1": ("product-service", "v1"),
    "product_v2": ("product-service", "v2"),
}
"""What an Envoy cluster of the meshes stands for."""


def edges(up: Up) -> dict[tuple[str, str, str], int]:
    """(client service, server service, server version) to calls between services."""
    rows = up.sql(
        "SELECT client_service, server_service, server_version, sum(calls) AS n FROM edges_10s"
        " WHERE connection = 'service' AND calls > 0 GROUP BY ALL HAVING n > 0"
    )
    return {(client, server, version): int(calls) for client, server, version, calls in rows}


def unsent(up: Up, flag: str) -> dict[tuple[str, str], int]:
    """(client service, server service) to requests refused at the caller with a response flag."""
    rows = up.sql(
        "SELECT client_service, server_service, sum(unsent) AS n FROM edges"
        f" WHERE has(splitByChar(',', response_flags), '{flag}') GROUP BY ALL HAVING n > 0"
    )
    return {(client, server): int(refused) for client, server, refused in rows}


def assert_balanced(ledger: dict[str, int]) -> None:
    """Everything received has one fate."""
    ends = ("rejected", "duplicate", "kept", "dropped", "aggregated", "left_out")
    assert ledger["received"] == sum(ledger[name] for name in ends)
    assert ledger["lost"] == ledger["refused"] == 0


def assert_edges_equal_counters(up: Up, counters: dict[str, dict[str, int]]) -> None:
    """Calls by server, refused ones by the caller's Envoy cluster, against Envoy's ``upstream_rq_total`` and
    overflow counters.
    """
    calls: dict[tuple[str, str, str], int] = {}
    refused: dict[tuple[str, str], int] = {}
    for name, counts in counters.items():
        service, cluster = name.split()
        if counts["calls"]:
            calls[service, *SERVER[cluster]] = counts["calls"]
        if counts["unsent"]:
            refused[service, cluster] = counts["unsent"]
    assert edges(up) == calls
    rows = up.sql(
        "SELECT client_service, upstream_cluster, sum(unsent) AS n FROM edges_10s WHERE upstream_cluster != '' GROUP BY ALL HAVING n > 0"
    )
    assert {(service, cluster): int(count) for service, cluster, count in rows} == refused
