"""`up` is two processes: whatever ends, stops or fools the second one, receivers and log go on, and no row
is lost or doubled.
"""

import asyncio
import os
import random
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import pytest

from benchmarks.load import make_requests
from tests.e2e.test_e2e_kill import (
    CAPTURES,
    CONFIG,
    EXPORT_LOGS,
    EXPORT_METRICS,
    QUICK,
    assert_accounted_for,
    assert_as_undisturbed,
    items_in,
    metric_requests,
    span_requests,
    wait_for_all,
)
from tests.support.load import Load
from tests.support.span_log import read_requests
from tests.support.up import LONG_S, Up, eventually, running_up

CRASHES = (signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM)
"""SIGKILL also meets one that starts. ``python -m tests.e2e.soak_kills`` goes on with these and others."""


def alive(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def refused(load: Load) -> list[grpc.RpcError]:
    """Answers other than OK. A request may wait for its time: for a busy machine, or for the lock on the
    log's file that a process has which was stopped in the middle of a commit.
    """
    return [error for error in load.failed if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    with running_up(tmp_path / "up", CONFIG, *QUICK) as up:
        yield up


def assert_crashes_change_no_row(folder: Path, up: Up, crashes: Sequence[signal.Signals], seed: int) -> None:
    """Let the second process end so many times, under load, and hold its tables against those of one that
    did not; ``folder`` is for the latter.
    """
    moments = random.Random(seed)
    first = up.pid
    loads = (
        Load(up, span_requests(20_000, seed=seed), gap_s=0.05),
        Load(up, metric_requests(), gap_s=0.8, senders=1, method=EXPORT_METRICS),
        Load(up, read_requests(CAPTURES / "logs.bin.gz"), gap_s=0.8, senders=1, method=EXPORT_LOGS),
    )
    with ExitStack() as running:
        for load in loads:
            running.enter_context(load)
        for how in crashes:
            time.sleep(moments.uniform(0, 1))
            if how != signal.SIGKILL:
                eventually(lambda: answers_sql(up), "SQL is answered")
            killed = up.signal_back(how)
            eventually(lambda killed=killed: killed not in up.back_pids(), "it is gone")  # type: ignore[misc]  # bound now
            eventually(up.has_opened_store, "the next one has opened the store")
        eventually(lambda: all(len(load.acknowledged) > 5 for load in loads), "every kind is acknowledged")
    assert not any(refused(load) for load in loads)
    assert up.pid == first
    assert_accounted_for(up, loads[0].acknowledged)
    wait_for_all(up)
    rows = up.tables()
    said = up.said()
    for how in {*crashes} - {signal.SIGTERM}:
        assert f"processing and SQL ended (killed by {how.name}) and are started again" in said
    assert up.stop() == 0
    assert_as_undisturbed(up, rows, folder, CONFIG)


@pytest.mark.timeout(900)
def test_crashes_of_the_second_process_refuse_no_request_and_change_no_row(tmp_path: Path, up: Up) -> None:
    assert_crashes_change_no_row(tmp_path / "undisturbed", up, CRASHES, seed=9)


def test_the_second_process_ends_with_the_first_and_the_next_up_takes_its_ports_at_once(up: Up) -> None:
    ports = [str(up.ports[name]) for name in ("grpc", "http", "sql")]
    (back,) = up.back_pids()
    up.kill()
    options = [
        part
        for pair in zip(("--grpc-port", "--http-port", "--sql-port"), ports, strict=True)
        for part in pair
    ]
    with running_up(up.folder, CONFIG, *QUICK, *options) as second:
        assert not alive(back)
        assert [str(second.ports[name]) for name in ("grpc", "http", "sql")] == ports
        assert second.count("SELECT 1") == 1
        assert second.stop() == 0


def test_a_stopped_second_process_holds_up_neither_receivers_nor_the_end(up: Up) -> None:
    requests = make_requests(2_000, 20, 5, 40, seed=3)
    back = up.signal_back(signal.SIGSTOP)
    with Load(up, requests) as load:
        load.finish()
    assert not refused(load)
    with suppress(
        ProcessLookupError
    ):  # on a busy machine that took so long that it was killed as a silent one
        os.kill(back, signal.SIGCONT)
    eventually(lambda: answers_sql(up), "SQL is answered")
    up.wait_for(asyncio.run(items_in(up.data / "log")))
    back = up.signal_back(signal.SIGSTOP)
    assert up.stop() == 0
    assert "did not end within" in up.said()
    assert not alive(back)
    up.start()
    assert_accounted_for(up, load.acknowledged)


def test_ctrl_c_of_a_terminal_ends_both_in_order(tmp_path: Path) -> None:
    up = Up(tmp_path, CONFIG, *QUICK)
    up.own_group = True
    try:
        up.start()
        (back,) = up.back_pids()
        with Load(up, make_requests(20_000, 20, 5, 20, seed=5)) as load:
            eventually(lambda: len(load.acknowledged) > 20, "some requests are acknowledged")
            os.killpg(up.pid, signal.SIGINT)
            assert up.stop(signal.SIGCONT) == 0
            load.stop()
        assert not alive(back)
        assert "Traceback" not in up.said()
        assert "killed" not in up.said()
        up.start()
        assert_accounted_for(up, load.acknowledged)
    finally:
        up.stop(signal.SIGKILL)


def test_sql_waits_for_the_next_process_while_receivers_are_healthy(up: Up) -> None:
    assert up.count("SELECT 1") == 1
    up.signal_back(signal.SIGKILL)
    empty = urllib.request.Request(f"{up.http}/v1/traces", b"", {"Content-Type": "application/x-protobuf"})
    with urllib.request.urlopen(empty, timeout=LONG_S) as taken:
        assert taken.status == 200
    eventually(lambda: answers_sql(up), "SQL is answered again")


def answers_sql(up: Up) -> bool:
    """One question may have been on its way to the process that was killed."""
    try:
        return up.count("SELECT 1") == 1
    except (AssertionError, ConnectionError):
        return False


def metrics(up: Up) -> str:
    url = f"http://127.0.0.1:{up.ports['sql']}/metrics"
    with urllib.request.urlopen(url, timeout=LONG_S) as response:
        text: str = response.read().decode()
    return text


def test_metrics_show_both_processes_each_family_once(up: Up) -> None:
    with Load(up, make_requests(400, 20, 5, 40, seed=3)) as load:
        load.finish()
    up.wait_for(400)
    up.signal_back(signal.SIGKILL)
    eventually(lambda: answers_sql(up), "SQL is answered again")
    lag = 'meshflow_process_lag_records{partition="0",topic="otlp_spans"}'
    eventually(lambda: lag in metrics(up), "the second process counts again")
    text = metrics(up)
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(set(families)) == len(families)
    assert 'meshflow_ingest_items_total{topic="otlp_spans"} 400.0' in text
    assert "meshflow_up_restarts_total 1.0" in text
    for name in ("process", "meshflow_receiving_process"):
        assert f"\n{name}_resident_memory_bytes " in text


def test_each_process_loads_what_it_needs_alone(up: Up) -> None:
    (back,) = up.back_pids()
    front, behind = (Path(f"/proc/{pid}/maps").read_text() for pid in (up.pid, back))
    assert "/grpc/" in front
    assert not any(library in front for library in ("_chdb", "polars", "clickhouse"))
    assert all(library in behind for library in ("_chdb", "polars"))
    assert not any(library in behind for library in ("/grpc/", "/pandas/"))


def test_data_are_nobody_elses_and_temporary_files_stay_within(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "system"
    system.mkdir()
    monkeypatch.setenv("TMPDIR", str(system))
    up = Up(tmp_path / "up", CONFIG, *QUICK)
    up.data.mkdir(mode=0o755)
    left = up.data / "tmp" / "tmpleft.native"
    left.parent.mkdir()
    left.write_text("rows")
    try:
        up.start()
        assert not left.exists()
        with Load(up, span_requests(8_000, seed=2), gap_s=0.02) as load:
            eventually(lambda: up.count("SELECT count() FROM otel_traces") > 0, "rows are stored")
            up.kill()
            load.stop()
    finally:
        up.stop(signal.SIGKILL)
    assert "was open to other local users (0755) and is 0700 now" in up.said()
    assert not list(system.iterdir())
    wide = [
        path
        for path in (up.data, *up.data.rglob("*"))
        if not path.is_symlink() and path.stat().st_mode & 0o077
    ]
    assert not [path for path in wide if path.parent in {up.data, up.data.parent}]
    assert up.data.stat().st_mode & 0o777 == 0o700


def test_nothing_listens_when_it_has_ended(up: Up) -> None:
    ports = [up.ports[name] for name in ("grpc", "http", "sql")]
    (back,) = up.back_pids()
    assert up.stop() == 0
    assert not alive(back)
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert subprocess.run(["pgrep", "-f", str(up.data)], capture_output=True, check=False).stdout == b""
