"""``meshflow scrape`` beside a running ``up``: what a target's counters gain is in the tables."""

import itertools
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.up import LONG_S, MESHFLOW, ROOT, eventually, running_up

PAGE = """\
# TYPE envoy_cluster_upstream_rq_total counter
envoy_cluster_upstream_rq_total{{envoy_cluster_name="outbound|9080||reviews.shop.svc.cluster.local"}} {value}
# TYPE app_jobs_total counter
app_jobs_total {value}
"""
STEP = 7


class Target(BaseHTTPRequestHandler):
    """Each page has STEP more requests."""

    pages = itertools.count(1)

    def do_GET(self) -> None:
        body = PAGE.format(value=STEP * next(self.pages)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Says nothing."""


def test_what_counters_gain_is_in_the_tables(tmp_path: Path) -> None:
    config = tmp_path / "scrape.toml"
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Target) as server,
        running_up(tmp_path / "up", '[processing]\npane = "500ms"\n') as up,
    ):
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        config.write_text(f"""
[scrape]
endpoint = "{up.http}"
interval = "1s"
timeout = "1s"

[[scrape.groups]]
job = "productpage"
targets = ["127.0.0.1:{server.server_port}"]
labels = {{ namespace = "shop", cluster = "prod-1" }}
""")
        command = [*MESHFLOW, "--config", str(config), "scrape", "--metrics-port", "0"]
        with (tmp_path / "scrape.log").open("wb") as log:
            scraping = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        try:
            gained = (
                "SELECT sum(attempts) FROM upstreams_10s WHERE service = 'productpage' AND namespace = 'shop'"
                " AND cluster = 'prod-1' AND peer_service = 'reviews' AND peer_namespace = 'shop'"
            )
            eventually(lambda: up.count(gained) >= 2 * STEP, "two pages' gains are in upstreams")
            assert up.count(gained) % STEP == 0
            jobs = "SELECT max(Value) FROM otel_metrics_sum WHERE MetricName = 'app_jobs_total'"
            assert up.count(jobs) >= 2 * STEP, "what no family claims is stored as it came"
            ups = "SELECT count() FROM otel_metrics_gauge WHERE MetricName = 'up' AND Value = 1"
            assert up.count(ups) >= 2
        finally:
            scraping.send_signal(signal.SIGTERM)
            assert scraping.wait(LONG_S) == 0
            server.shutdown()
            serving.join()
    assert "1, every 1 s" in (tmp_path / "scrape.log").read_text()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is nothing to scrape"),
        ('[[scrape.groups]]\njob = "a"\ntargets = ["nowhere"]\n', "'nowhere' is no HOST:PORT"),
    ],
)
def test_a_start_without_targets_says_what_to_do(tmp_path: Path, text: str, reason: str) -> None:
    config = tmp_path / "meshflow.toml"
    config.write_text(text)
    command = [*MESHFLOW, "--config", str(config), "scrape", "--metrics-port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LONG_S, cwd=ROOT, check=False)
    assert ended.returncode == 2
    assert reason in ended.stderr
    assert "Traceback" not in ended.stderr
