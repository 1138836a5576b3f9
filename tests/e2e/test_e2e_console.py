"""``meshflow console``: the read-only port in front of a ClickHouse server, as a process of its own."""

import re
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from tests.support.store_server import StoreServer
from tests.support.up import LONG_S, MESHFLOW, ROOT, eventually


def ask(url: str, sql: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"{url}/", sql.encode(), timeout=LONG_S) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_reads_what_the_server_has_and_nothing_more(tmp_path: Path) -> None:
    server = StoreServer(tmp_path / "server").start()
    try:
        writable = f"http://127.0.0.1:{server.port}"
        assert ask(writable, "CREATE TABLE noted (n UInt8) ENGINE = MergeTree ORDER BY n")[0] == 200
        assert ask(writable, "INSERT INTO noted VALUES (7)")[0] == 200
        (tmp_path / "meshflow.toml").write_text(f'[storage]\nstore = "{server.url()}"\n')
        log = tmp_path / "console.log"
        command = [*MESHFLOW, "--config", str(tmp_path / "meshflow.toml"), "console", "--sql-port", "0"]
        with log.open("wb") as said:
            process = subprocess.Popen(command, stdout=said, stderr=said, cwd=ROOT)
        try:
            eventually(lambda: "is ready" in log.read_text(), f"`meshflow console` is ready, see {log}")
            (url,) = re.findall(r"SQL +(\S+)", log.read_text())
            assert ask(url, "SELECT n FROM noted FORMAT TSV") == (200, "7\n")
            assert ask(url, "INSERT INTO noted VALUES (8)")[0] == 403
            assert ask(url, "SELECT * FROM url('http://127.0.0.1:1/', CSV, 'n UInt8')")[0] == 403
            with urllib.request.urlopen(f"{url}/metrics", timeout=LONG_S) as response:
                assert b"meshflow_" in response.read()
            server.kill()
            status, said_why = ask(url, "SELECT 1")
            assert status >= 500, said_why
            process.send_signal(signal.SIGTERM)
            assert process.wait(LONG_S) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
    finally:
        server.kill()


def test_a_folder_is_for_the_store_command(tmp_path: Path) -> None:
    done = subprocess.run([*MESHFLOW, "console"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "needs a ClickHouse server: MESHFLOW_STORE=" in done.stderr
