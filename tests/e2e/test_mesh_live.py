"""Real Envoys deliver to ``meshflow up``: its edges are what the Envoys themselves counted."""

from pathlib import Path

import pytest

from tests.e2e.edges import assert_balanced, assert_edges_equal_counters
from tests.support.mesh.mesh import running_mesh
from tests.support.up import running_up


@pytest.mark.component("envoy")
async def test_edges_equal_the_counters_of_a_live_mesh(tmp_path: Path) -> None:
    with running_up(tmp_path / "up", "", "--pane", "1s", "--wait", "2") as up:
        async with running_mesh(tmp_path, up.ports["grpc"]) as mesh:
            await mesh.drive(rounds=2)
            exported = await mesh.exported()
            counters = await mesh.counters()
        ledger = up.wait_for(exported)
        assert ledger["received"] == exported
        assert_balanced(ledger)
        assert_edges_equal_counters(up, counters)
        assert up.count("SELECT sum(attempts) FROM upstreams_10s") > 0
        assert up.count("SELECT count() FROM otel_logs") > 0
