"""The campaign of ``python -m tests.e2e.soak_requests`` on its first requests."""

from pathlib import Path

from tests.e2e.soak_requests import campaign

REQUESTS = 500


def test_first_seeds(tmp_path: Path) -> None:
    soak = campaign(tmp_path, REQUESTS, seed=1)
    assert (soak.sent, soak.probes) == (REQUESTS, REQUESTS // 100)
    assert {"grpc OK", "grpc INVALID_ARGUMENT", "http 200", "http 400"} <= set(soak.statuses)
    assert "Traceback" not in (tmp_path / "up.log").read_text()
