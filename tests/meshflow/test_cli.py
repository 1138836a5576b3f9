"""The command line as its users meet it: help, settings, clear errors, and a whole ``up`` from start to
restart.
"""

import logging
import signal
import socket
import time
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from meshflow.cli import main
from meshflow.cli.shared import EXIT_BROKEN
from storage import embedded
from tests.support.up import ROOT, Up, eventually, running_up
from tests.support.up import replay as replay_into

CAPTURE = ROOT / "tests" / "data" / "envoy" / "traces.bin.gz"
QUICK = ("--pane", "300ms", "--wait", "1")


def call(*arguments: str) -> Result:
    """A command in this process; it leaves the logging of the tests as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        return CliRunner().invoke(main, arguments)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def assert_one_line(result: Result, text: str) -> None:
    assert text in result.stderr
    assert result.stderr.startswith("meshflow: ")
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr


def test_every_command_has_help() -> None:
    for command in ((), ("up",), ("replay",), ("query",), ("migrate",), ("config",)):
        result = call(*command, "--help")
        assert result.exit_code == 0
        assert "Usage:" in result.output


def test_config_shows_values_and_origins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[processing]\nwait = 7\n")
    monkeypatch.setenv("MESHFLOW_PROCESSING__PANE", "2s")
    shown = call("--config", str(file), "config")
    assert shown.exit_code == 0
    lines = {line.split(" = ")[0]: line for line in shown.output.splitlines()}
    assert lines["processing.wait"].split() == ["processing.wait", "=", "7", "#", "file", str(file)]
    assert lines["processing.pane"].endswith("# environment variable MESHFLOW_PROCESSING__PANE")
    assert lines["ingest.grpc_port"].endswith("# default")


def test_config_hides_the_stores_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHFLOW_STORE", "clickhouse://me:open-sesame@db:8123/mesh")
    shown = call("config").output
    assert "open-sesame" not in shown
    assert "clickhouse://me:***@db:8123/mesh" in shown


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("up", "--pane", "5x"), "command line: processing.pane = '5x'"),
        (("up", "--grpc-port", "70000"), "command line: ingest.grpc_port = 70000"),
        (("--config", "/nowhere.toml", "config"), "settings file /nowhere.toml is not there"),
        (
            ("query", "--data", "/nowhere", "SELECT 1"),
            "there is no running meshflow and no data in /nowhere/store",
        ),
        (("query", "--url", "http://127.0.0.1:1", "SELECT 1"), "127.0.0.1:1 does not answer"),
        (("query", "--url", "localhost", "SELECT 1"), "write it like http://127.0.0.1:8123"),
        (("query", "--named", "nowhere", "--url", "localhost"), "there is no question 'nowhere'"),
        (("query",), "say SQL, or --named NAME"),
    ],
)
def test_errors_are_one_line_and_a_code(arguments: tuple[str, ...], text: str) -> None:
    result = call(*arguments)
    assert result.exit_code in {1, 2}
    assert_one_line(result, text)


def test_up_from_start_to_restart(tmp_path: Path) -> None:
    fewer_partitions = tmp_path / "fewer.toml"
    fewer_partitions.write_text("[processing]\npartitions = 2\n")
    with running_up(tmp_path, "", *QUICK) as up:
        replay_into(up, CAPTURE)
        ledger = up.wait_for(2195)
        assert ledger["received"] == 2195
        answer = call("query", "--data", str(up.data), "--format", "CSV", "SELECT sum(requests) FROM red")
        assert (answer.exit_code, answer.stdout) == (0, "2195\n")
        for name in call("query", "--named", "list").stdout.split():
            named = call("query", "--data", str(up.data), "--format", "TSVWithNames", "--named", name)
            assert named.exit_code == 0, named.stderr
            assert named.stdout, "names of columns at least"
        failed = call("query", "--data", str(up.data), "SELECT * FROM nowhere")
        assert failed.exit_code == 1
        assert_one_line(failed, "Code: 60")
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{up.ports['sql']}/metrics").read().decode()
        assert 'meshflow_ingest_items_total{topic="otlp_spans"} 2195.0' in metrics
        assert 'meshflow_store_rows_total{table="ledger"}' in metrics

        second = call("up", "--data", str(up.data), "--grpc-port", "0", "--http-port", "0", "--sql-port", "0")
        assert second.exit_code == 1
        assert_one_line(second, f"in use by another meshflow (process {up.pid})")
        broken = call("replay", str(ROOT / "pyproject.toml"), "--target", up.grpc)
        assert broken.exit_code == 1
        assert_one_line(broken, "is not a capture")

        assert up.stop(signal.SIGTERM) == 0
        assert not (up.data / "ports.json").exists()
        at_rest = call("query", "--data", str(up.data), "--format", "CSV", "SELECT sum(requests) FROM red")
        assert (at_rest.exit_code, at_rest.stdout) == (0, "2195\n")
        assert "up to date" in call("migrate", "--data", str(up.data)).stdout

        fewer = call(
            "--config",
            str(fewer_partitions),
            "up",
            "--data",
            str(up.data),
            "--grpc-port",
            "0",
            "--http-port",
            "0",
        )
        assert fewer.exit_code == 1
        assert_one_line(fewer, "otlp_logs has 2 partitions by the settings, but the log has a partition 2")

        up.start()
        replay_into(up, CAPTURE)
        up.wait_for(2 * 2195)
        assert up.stop(signal.SIGINT) == 0


def test_a_port_in_use_is_a_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = call(
            "up", "--data", str(tmp_path), "--grpc-port", port, "--http-port", "0", "--sql-port", "0"
        )
    assert result.exit_code == 1
    assert_one_line(result, f"OTLP/gRPC cannot listen on 127.0.0.1:{port}")


def test_processing_that_fails_ends_the_process_with_a_reason(tmp_path: Path) -> None:
    up = Up(tmp_path, "", *QUICK)
    assert call("migrate", "--data", str(up.data)).exit_code == 0
    engine = embedded.connect(up.data / "store")
    engine.query("ALTER TABLE ledger DROP COLUMN lost")
    engine.close()
    up.start()
    call("replay", str(CAPTURE), "--target", up.grpc, "--speed", "0")  # may see the end of its receiver
    assert up.wait() == EXIT_BROKEN
    log = (tmp_path / "up.log").read_text()
    assert (
        log.strip()
        .splitlines()[-1]
        .startswith("meshflow: processing failed: SinkUnusable: the tables are not those of this version")
    )
    assert not (up.data / "ports.json").exists()


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    slow = "[ingest]\ndrain_time = '60s'\n"
    with (
        running_up(tmp_path, slow, *QUICK) as up,
        socket.create_connection(("127.0.0.1", up.ports["http"])) as half,
    ):
        half.sendall(
            b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: 9\r\n\r\nhalf"
        )
        time.sleep(0.3)
        up.ask_to_end()
        eventually(lambda: not _listens(up.ports["grpc"]), "the receiver closes")
        assert up.stop(signal.SIGTERM) == 130


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
