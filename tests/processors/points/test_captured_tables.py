"""Tables of counters: the captured mesh against Envoy's own last numbers."""

from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from schemas import otlp
from tests.processors.points.counters import (
    ENVOY,
    T0_S,
    balance,
    rows,
    settings,
    summed,
)
from tests.support.span_log import read_requests

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


@cache
def captured() -> tuple[list[tuple[float, bytes]], list[dict[str, Any]]]:
    """Requests by time, and Envoy's last number of each of its counters."""
    requests, last = [], {}
    for request in read_requests(CAPTURE):
        batch = otlp.decode_points([request])
        points, contexts = batch.points, batch.contexts
        strings = contexts.strings.to_pylist()
        sets = contexts.attributes["attributes"].to_pylist(maps_as_pydicts="strict")
        owners = contexts.resources["attributes"].to_pylist(maps_as_pydicts="strict")
        time_s = points["time_ns"][0].as_py() / 1e9 - T0_S
        requests.append((time_s, request))
        for name, attributes, resource, value in zip(
            *(points[each].to_pylist() for each in ("name", "attributes", "resource", "value")), strict=True
        ):
            said = sets[attributes]
            key = (owners[resource]["service.instance.id"], strings[name], tuple(sorted(said.items())))
            last[key] = {
                "name": strings[name],
                "service": owners[resource]["service.name"],
                "upstream": said.get("envoy.cluster_name", ""),
                "code": said.get("envoy.response_code", ""),
                "manager": said.get("envoy.http_conn_manager_prefix", ""),
                "value": value,
            }
    return sorted(requests, key=lambda each: each[0]), list(last.values())


def truth(name: str, *by: str) -> dict[tuple[str, ...], float]:
    sums: dict[tuple[str, ...], float] = defaultdict(float)
    for each in captured()[1]:
        if each["name"] == name and each["manager"] != "admin":
            sums[tuple(each[key] for key in by)] += each["value"]
    return {key: total for key, total in sums.items() if total}


@cache
def of_capture() -> dict[str, list[dict[str, Any]]]:
    return rows(captured()[0])


@pytest.mark.parametrize(
    ("column", "name"),
    {
        "attempts": "cluster.upstream_rq_total",
        "retries": "cluster.upstream_rq_retry",
        "request_overflow": "cluster.upstream_rq_active_overflow",
        "pending_overflow": "cluster.upstream_rq_pending_overflow",
        "ejections": "cluster.outlier_detection.ejections_enforced_total",
        "timeouts": "cluster.upstream_rq_timeout",
        "tls_handshakes": "cluster.ssl.handshake",
    }.items(),
)
def test_upstreams_of_the_captured_mesh_are_envoys_own_numbers(column: str, name: str) -> None:
    found = summed(of_capture()["upstreams_10s"], ("service", "upstream"), column)
    assert found == truth(name, "service", "upstream")
    assert found


def test_requests_of_the_captured_mesh() -> None:
    found = of_capture()["traffic_10s"]
    attempts = summed(of_capture()["upstreams_10s"], ("service", "upstream"), "attempts")
    of_admin = {
        ("front-proxy", "order_service"): 319,
        ("front-proxy", "product_v1"): 298,
        ("front-proxy", "product_v2"): 59,
        ("order-service", "product_v1"): 311,
        ("order-service", "product_v2"): 53,
    }
    assert of_admin.items() <= attempts.items(), "what Envoy's admin page said at the end"
    client = [row for row in found if row["side"] == "client"]
    by = ("service", "peer_service", "response_code")
    assert summed(client, by, "requests") == truth(RQ, "service", "upstream", "code")
    server = [row for row in found if row["side"] == "server"]
    inbound = truth("http.downstream_rq_completed", "service", "manager")
    assert summed(server, ("service",), "requests") == {
        (service,): total for (service, manager), total in inbound.items() if manager != "outbound"
    }
    assert {row["source"] for row in found} == {"envoy"}
    assert summed(client, ("service",), "errors")[("front-proxy",)] == 233


def test_the_ledger_of_the_captured_mesh_is_balanced() -> None:
    sums = balance(of_capture())
    assert sums["received"] == 91454
    assert sums["aggregated"] + sums["left_out"] == 91454
    kept = balance(rows(captured()[0][:25], settings(metrics={"keep": ["*upstream_rq*", "server.version"]})))
    assert 0 < kept["stored"] < kept["received"]
