"""`up` with its tables on a server: the server is killed in the middle of inserts, and no row is lost or
doubled.
"""

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from benchmarks.load import make_requests
from tests.e2e.test_e2e_kill import CONFIG, assert_accounted_for, forget_commits
from tests.support.load import Load
from tests.support.store_server import StoreServer
from tests.support.up import LONG_S, MESHFLOW, ROOT, Up, eventually, running_up

KILLS = 6
PANES = ("--pane", "1s", "--wait", "1")
SPANS = 12_000


def with_store(server: StoreServer, database: str) -> str:
    return f'[storage]\nstore = "{server.url(database)}"\n{CONFIG}'


def caught_up(up: Up) -> None:
    """All that was sent is processed: a thousand inserts, on a busy machine."""
    eventually(
        lambda: up.ledger()["received"] >= SPANS,
        lambda: f"{SPANS} spans in the ledger: {up.ledger()}",
        within_s=400,
    )


@pytest.mark.timeout(1200)
def test_a_server_killed_in_the_middle_of_inserts_has_the_rows_of_an_undisturbed_one(tmp_path: Path) -> None:
    moments = random.Random(7)
    requests = make_requests(SPANS, 20, 5, 40, seed=7, spans_per_s=1_000)
    server = StoreServer(tmp_path / "server").start()
    up = Up(tmp_path / "killed", with_store(server, "killed"), *PANES)
    acknowledged: list[bytes] = []
    try:
        up.start()
        for kill in range(KILLS):
            with Load(up, requests[kill::KILLS], gap_s=0.05) as load:
                time.sleep(moments.uniform(0.2, 1.0))
                server.kill()
                load.finish()  # requests are taken while the server is away
            acknowledged += load.acknowledged
            server.start()
        assert len(acknowledged) == len(requests)
        caught_up(up)
        assert_accounted_for(up, acknowledged)
        killed = up.tables()
        assert up.stop() == 0

        shutil.copytree(up.data / "log", tmp_path / "undisturbed/data/log")
        forget_commits(tmp_path / "undisturbed/data/log")
        with running_up(tmp_path / "undisturbed", with_store(server, "undisturbed"), *PANES) as undisturbed:
            caught_up(undisturbed)
            assert_accounted_for(undisturbed, acknowledged)
            for table, rows in undisturbed.tables().items():
                assert rows == killed[table], table
        assert server.stop() == 0
    finally:
        up.stop(signal.SIGKILL)
        server.kill()


def run(server: StoreServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    config = server.data.parent / "client.toml"
    config.write_text(f'[storage]\nstore = "{server.url("mesh")}"\ndata = "{server.data.parent / "none"}"\n')
    command = [*MESHFLOW, "--config", str(config), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONG_S, check=False)


def test_migrate_and_query_speak_to_the_server(tmp_path: Path) -> None:
    server = StoreServer(tmp_path / "server")
    try:
        away = run(server, "query", "SELECT 1")
        assert (away.returncode, away.stdout) == (1, "")
        assert f"http://127.0.0.1:{server.port}/ does not answer" in away.stderr
        away = run(server, "migrate")
        assert away.returncode == 1
        assert f"clickhouse://127.0.0.1:{server.port} cannot be opened" in away.stderr
        assert len(away.stderr.splitlines()) == 1, away.stderr
        server.start()
        assert "applied 0001_otel_traces_logs.sql" in run(server, "migrate").stdout
        assert run(server, "migrate").stdout == "the tables are up to date\n"
        assert (
            run(server, "query", "SELECT count(), currentDatabase() AS db FROM red").stdout
            == "count()\tdb\n0\tmesh\n"
        )
        refused = run(server, "query", "DROP TABLE red_10s")
        assert (refused.returncode, "ACCESS_DENIED" in refused.stderr) == (1, True)
        assert "Syntax error" in run(server, "query", "SELEC 1").stderr
    finally:
        server.kill()
