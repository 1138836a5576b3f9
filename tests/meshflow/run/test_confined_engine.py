"""The engine without meshflow's guard, within the bounds of ``up``'s second process: a hole in the guard
leads nowhere.
"""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from log.sqlite.retention import Limits
from log.sqlite.writer import SqliteLogWriter
from meshflow.run.bounds import bounds
from meshflow.settings import load
from tests.support.up import ROOT

LOG_DESCRIPTORS = ("LOG", "WAL")
"""Stand for the descriptors of the log's open files."""
UNGUARDED = """
import json, os, sys, tempfile
from pathlib import Path
from meshflow.run.bounds import bounds, bounds_with_log_open
from meshflow.run.confinement import CannotConfine, confine
from meshflow.settings import load

data, confined, statements = Path(sys.argv[1]), sys.argv[2] == "confined", json.loads(sys.argv[3])
settings = load(options={("storage", "data"): str(data)}, environ={}).settings
temporary = Path(tempfile.gettempdir())
try:
    if confined:
        confine(bounds(settings, temporary))
except CannotConfine as error:
    print(json.dumps(str(error)), flush=True)
    os._exit(0)
from log.sqlite.reader import SqliteLogReader
reader = SqliteLogReader(data / "log")
if confined:
    confine(bounds_with_log_open(settings, temporary))
import asyncio, chdb
connection = chdb.connect(str(data / "store"))

def ask(sql):
    try:
        return (connection.query(sql, "TSVRaw").bytes() or b"").decode(errors="replace")
    except RuntimeError as error:
        return f"refused: {error}"

for sql in ("CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n", "INSERT INTO t SELECT number FROM numbers(100000)",
            "OPTIMIZE TABLE t FINAL"):
    assert ask(sql) == "", ask(sql)
assert len(asyncio.run(reader.partitions())) == 1
links = {number: os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
of_log = {name: number for number, name in links.items()}
for mark, name in (("LOG", "log.sqlite"), ("WAL", "log.sqlite-wal")):
    number = of_log[str(data / "log" / name)]
    statements = [sql.replace(f"/fd/{mark}'", f"/fd/{number}'") for sql in statements]
print(json.dumps([ask(sql) for sql in statements]), flush=True)
os._exit(0)
"""


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "data"
    for name in ("log", "store", "tmp"):
        (folder / name).mkdir(parents=True)
    writer = SqliteLogWriter(folder / "log", {"otlp_spans": 1}, Limits(timedelta(days=1), 1 << 30))
    yield folder
    asyncio.run(writer.close())


class _Secret(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a secret\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Secret)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def answers(data: Path, kind: str, statements: list[str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", UNGUARDED, str(data), kind, json.dumps(statements)],
        cwd=ROOT,
        env={"TMPDIR": str(data / "tmp"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    if isinstance(said, str):
        pytest.skip(said)
    assert isinstance(said, list)
    return said


def test_a_hole_in_the_guard_leads_nowhere(data: Path, url: str, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a secret\n")
    holes = [
        f"SELECT * FROM file('{tmp_path}/secret.csv', LineAsString)",
        f"SELECT * FROM url('{url}', LineAsString) SETTINGS http_max_tries = 1",  # else it waits, ten times
        f"SELECT * FROM sqlite('{data}/log/log.sqlite', 'partitions')",
        *(f"SELECT file('/proc/self/fd/{number}')" for number in LOG_DESCRIPTORS),
        "SELECT file('/proc/1/environ')",
        "SELECT * FROM remote('127.0.0.1:9', 'system', 'one')",
        f"SELECT 1 INTO OUTFILE '{tmp_path}/written' FORMAT CSV",
        f"SELECT 1 INTO OUTFILE '{data}/ports.json' FORMAT CSV",
        f"SELECT 1 INTO OUTFILE '{data}/log/log.sqlite' TRUNCATE FORMAT CSV",
    ]
    before = (data / "log/log.sqlite").read_bytes()
    for hole, said in zip(holes, answers(data, "confined", holes), strict=True):
        assert said.startswith("refused: "), f"{hole}: {said}"
        assert "a secret" not in said
    assert (data / "log/log.sqlite").read_bytes() == before
    assert not (tmp_path / "written").exists()
    assert not (data / "ports.json").exists()


def test_without_bounds_these_holes_would_lead_out(data: Path, url: str, tmp_path: Path) -> None:
    """So the test above refuses what works."""
    (tmp_path / "secret.csv").write_text("a secret\n")
    read, asked, wrote = answers(
        data,
        "open",
        [
            f"SELECT * FROM file('{tmp_path}/secret.csv', LineAsString)",
            f"SELECT * FROM url('{url}', LineAsString)",
            f"SELECT 1 INTO OUTFILE '{tmp_path}/written' FORMAT CSV",
        ],
    )
    assert (read, asked, wrote) == ("a secret\n", "a secret\n", "")
    assert (tmp_path / "written").exists()


def test_only_the_port_of_settings_can_be_connected_to(tmp_path: Path) -> None:
    options: dict[tuple[str, ...], str] = {("storage", "data"): str(tmp_path)}
    assert not bounds(load(options=options, environ={}).settings, tmp_path).connect_ports
    options[("storage", "store")] = "clickhouse://db:8124/mesh"
    assert tuple(bounds(load(options=options, environ={}).settings, tmp_path).connect_ports) == (8124,)
