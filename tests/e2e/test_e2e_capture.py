"""The captured mesh through the real gRPC port: edges are Envoy's own counters, and every span is accounted
for.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.edges import assert_balanced, assert_edges_equal_counters, edges, unsent
from tests.support.up import ROOT, Up, replay, running_up

CAPTURE = ROOT / "tests/data/envoy/traces.bin.gz"
CAPTURED_SPANS = CAPTURED_LOGS = 2195
CAPTURED_POINTS = 91_454
SPAWNED = ROOT / "tests/data/envoy_spawn"


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    with running_up(tmp_path, "", "--pane", "1s", "--wait", "2") as up:
        yield up


CAPTURED_CALLS = {
    ("front-proxy", "order-service", "v1"): 319,
    ("front-proxy", "product-service", "v1"): 298,
    ("front-proxy", "product-service", "v2"): 59,
    ("order-service", "product-service", "v1"): 311,
    ("order-service", "product-service", "v2"): 53,
}
CAPTURED_ATTEMPTS = {
    ("front-proxy", "order_service"): 319,
    ("front-proxy", "product_v1"): 298,
    ("front-proxy", "product_v2"): 59,
    ("order-service", "product_v1"): 311,
    ("order-service", "product_v2"): 53,
}
CAPTURED_UNSENT = {("front-proxy", "order-service"): 210, ("order-service", "product-service"): 6}


def test_captured_mesh_gives_envoys_own_numbers_and_a_second_delivery_changes_nothing(up: Up) -> None:
    replay(up, CAPTURE)
    first = up.wait_for(CAPTURED_SPANS)
    assert edges(up) == CAPTURED_CALLS
    assert unsent(up, "UO") == CAPTURED_UNSENT
    assert first["received"] == CAPTURED_SPANS
    assert first["duplicate"] == first["rejected"] == 0
    assert_balanced(first)
    assert up.count("SELECT sum(requests) FROM red_10s") == CAPTURED_SPANS
    assert up.count("SELECT count() FROM otel_traces") == first["kept"] > 0

    tables = {name: rows for name, rows in up.tables().items() if name != "ledger"}
    replay(up, CAPTURE)
    second = up.wait_for(2 * CAPTURED_SPANS)
    assert second["received"] == 2 * CAPTURED_SPANS
    assert second["duplicate"] == CAPTURED_SPANS
    assert_balanced(second)
    assert {name: rows for name, rows in up.tables().items() if name != "ledger"} == tables


def test_captured_mesh_with_its_times_moved_to_now(up: Up) -> None:
    replay(up, CAPTURE, options=["--now"])
    assert_balanced(up.wait_for(CAPTURED_SPANS))
    assert edges(up) == CAPTURED_CALLS
    assert unsent(up, "UO") == CAPTURED_UNSENT


def test_mesh_with_spawned_upstream_spans_gives_envoys_own_numbers(up: Up) -> None:
    expected = json.loads((SPAWNED / "expected.json").read_text())
    replay(up, SPAWNED / "traces.bin.gz")
    assert_balanced(up.wait_for(expected["spans"]))
    assert_edges_equal_counters(up, expected["edges"])


def test_captured_logs_are_stored_and_metrics_counted(up: Up) -> None:
    replay(up, CAPTURE.with_name("logs.bin.gz"), CAPTURE.with_name("metrics.bin.gz"), options=["--now"])
    logs = up.wait_for(CAPTURED_LOGS, "otlp_logs")
    assert logs["received"] == logs["kept"] == CAPTURED_LOGS
    assert up.count("SELECT count() FROM otel_logs") == CAPTURED_LOGS
    metrics = up.wait_for(CAPTURED_POINTS, "otlp_metrics")
    assert metrics["received"] == CAPTURED_POINTS
    assert metrics["kept"] == metrics["unknown"] == 0, "all statistics are Envoys', which began as they came"
    assert_balanced(metrics)
    attempts = up.sql(
        "SELECT service, upstream, sum(attempts) AS n FROM upstreams_10s GROUP BY ALL HAVING n > 0"
    )
    of_services = {(service, upstream): int(count) for service, upstream, count in attempts}
    assert CAPTURED_ATTEMPTS.items() <= of_services.items()
    assert up.count("SELECT sum(request_overflow) FROM upstreams_10s") == 213
