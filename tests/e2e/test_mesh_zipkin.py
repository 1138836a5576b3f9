"""Envoys with the Zipkin tracer, whose clients and servers share span ids, through a Collector that sends
zstd: edges are still what the Envoys themselves counted.
"""

import asyncio
from pathlib import Path

import pytest

from tests.e2e.edges import assert_balanced
from tests.support.collector.running import Collector
from tests.support.kafka.ports import reserve_port
from tests.support.mesh.mesh import running_mesh
from tests.support.up import running_up

pytestmark = [
    pytest.mark.component("envoy"),
    pytest.mark.component("collector"),
    pytest.mark.timeout(2400),  # the Collector may have to be built
]


async def test_edges_equal_the_counters_of_envoys_with_the_zipkin_tracer(tmp_path: Path) -> None:
    zipkin_port = reserve_port()
    with running_up(tmp_path / "up", "", "--pane", "1s", "--wait", "2") as up:
        config = {
            "receivers": {"zipkin": {"endpoint": f"127.0.0.1:{zipkin_port}"}},
            "exporters": {"otlp": {"endpoint": up.grpc, "compression": "zstd", "tls": {"insecure": True}}},
            "service": {"pipelines": {"traces": {"receivers": ["zipkin"], "exporters": ["otlp"]}}},
        }
        collector = Collector(tmp_path, config)
        await asyncio.to_thread(collector.__enter__)
        try:
            async with running_mesh(tmp_path, up.ports["grpc"], zipkin_port=zipkin_port) as mesh:
                await mesh.drive(rounds=1)
                exported, counters = await mesh.exported(), await mesh.counters()
        finally:
            await asyncio.to_thread(collector.stop)
        ledger = up.wait_for(exported)
        assert (ledger["received"], ledger["duplicate"]) == (exported, 0)
        assert_balanced(ledger)
        rows = up.sql(
            "SELECT client_service, upstream_cluster, sum(calls), sum(unsent) FROM edges WHERE upstream_cluster != '' GROUP BY ALL"
        )
        found = {f"{client} {cluster}": (int(calls), int(unsent)) for client, cluster, calls, unsent in rows}
        assert found == {
            name: (counts["calls"], counts["unsent"])
            for name, counts in counters.items()
            if counts["calls"] or counts["unsent"]
        }
        assert up.sql(
            "SELECT DISTINCT server_service FROM edges WHERE connection = 'service' AND calls > 0 ORDER BY ALL"
        ) == [["order-service"], ["product-service"]]
