"""A running ``up`` whose disk is full: senders are refused, nothing ends, and all goes on by itself."""

import shutil
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.load import make_requests
from schemas.otlp import split
from schemas.topics import SPANS
from tests.support.disks import fill, make_room, small_disk
from tests.support.up import KEEP_ALL, LONG_S, Up, eventually

pytestmark = pytest.mark.timeout(600)


def send(up: Up, request: bytes) -> int:
    """Status of an export over HTTP."""
    asked = urllib.request.Request(
        f"{up.http}/v1/traces", request, {"Content-Type": "application/x-protobuf"}
    )
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_full_disk_refuses_and_all_goes_on_when_there_is_room(tmp_path: Path) -> None:
    requests = iter(make_requests(40_000, 5, 5, 600, seed=4))
    spans: Counter[int] = Counter()  # by the status of their requests

    def one() -> int:
        request = next(requests)
        status = send(up, request)
        spans[status] += split(SPANS, request, 1).items
        return status

    with small_disk(tmp_path / "data", 256 << 20) as disk:
        up = Up(tmp_path, KEEP_ALL, "--pane", "300ms", "--wait", "1").start()
        log, pid = tmp_path / "up.log", up.pid
        try:
            for _ in range(2):
                assert one() == 200
                fill(disk)
                refused = 0
                while refused < 20:
                    refused += one() == 503
                eventually(lambda: "is full" in log.read_text(), "the log says that its disk is full")
                make_room(disk)
                end_s = time.monotonic() + LONG_S
                while one() != 200:
                    assert time.monotonic() < end_s, "receivers do not take requests again"
            assert set(spans) == {200, 503}
            up.wait_for(spans[200])
            eventually(lambda: up.ledger()["refused"] == spans[503], "the ledger counts what was refused")
            ledger = up.ledger()
            assert (ledger["received"], ledger["kept"], ledger["stored"]) == (spans[200],) * 3
            assert (ledger["lost"], ledger["duplicate"]) == (0, 0)
            assert up.pid == pid
            assert "Traceback" not in log.read_text()
        finally:
            code = up.stop(signal.SIGTERM)
        assert code == 0


def test_a_log_that_is_removed_ends_up_with_one_line_and_the_next_start_says_so(tmp_path: Path) -> None:
    (request,) = make_requests(10, 5, 5, 600, seed=4)
    up = Up(tmp_path, KEEP_ALL, "--pane", "300ms", "--wait", "1").start()
    log = tmp_path / "up.log"
    assert send(up, request) == 200
    eventually((up.data / "log.seen").exists, "the log is known")
    shutil.rmtree(up.data / "log")
    eventually(lambda: not Path(f"/proc/{up.pid}/exe").exists() or has_ended(up), "the process ends")
    assert up.stop() == 1
    assert "was removed or replaced while meshflow had it open" in log.read_text().splitlines()[-1]
    assert "Traceback" not in log.read_text()
    up.start()
    assert "is not the one that was here before" in log.read_text()
    assert send(up, request) == 200
    assert up.stop(signal.SIGTERM) == 0


def has_ended(up: Up) -> bool:
    """Whether the process is gone, or waits for its parent."""
    return " Z " in Path(f"/proc/{up.pid}/stat").read_text()
