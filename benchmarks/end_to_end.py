"""``meshflow up`` under a load program of its own: what a span costs from the gRPC port until everything
about it is stored.

A case starts ``up`` on an empty folder that keeps 2 % of traces, has ``benchmarks.send`` send all spans (as
fast as they are acknowledged, or at the 50,000 a second that meshflow is sized for), and waits until the
ledger has them all and the process is idle. CPU is that of both processes of ``up`` from their being ready
to that moment (the load program's is not in it), peak RSS the sum of their peaks. The rate is spans over the
time until all are stored, without the delay that panes have by design (``wait`` + 1 panes).
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import Case, Measurement, main, peak_rss_mib
from tests.support.up import ROOT, Up, eventually

CONFIG = """
[processing]
pane = "5s"
wait = 2

[[sampling.policies]]
name = "two-per-cent"
type = "probabilistic"
probabilistic = { sampling_percentage = 2.0 }
"""
DELAY_S = 15.0
SPANS_PER_REQUEST = 200
WITHIN_S = 240.0


def run(spans: int, services: int, operations: int, rate: int) -> Measurement:
    """One case: ``services * operations`` keys, evenly spread; ``rate`` spans a second (0: as fast as it
    goes).
    """
    measurement = Measurement(spans)
    with tempfile.TemporaryDirectory(prefix="meshflow-bench-") as folder:
        up = Up(Path(folder), CONFIG)
        try:
            up.start()
            with _load(up.grpc, spans, services, operations, rate) as load:
                assert load.stdin is not None
                assert load.stdout is not None
                load.stdout.readline()  # "ready"
                begin_s, cpu_before_s = time.perf_counter(), _cpu_s(up)
                load.stdin.write("go\n")
                load.stdin.close()
                sent: dict[str, Any] = json.loads(load.stdout.readline())
                sent_s = time.perf_counter() - begin_s
            eventually(
                lambda: up.ledger()["received"] >= spans,
                lambda: f"all spans stored: {up.ledger()}",
                WITHIN_S,
                every_s=0.5,
            )
            measurement.wall_s = max(sent_s, time.perf_counter() - begin_s - DELAY_S)
            _wait_until_idle(up)
            measurement.cpu_s = _cpu_s(up) - cpu_before_s
            measurement.peak_rss_mib = _peak_rss_mib(up)
            ledger = up.ledger()
            rows = up.count("SELECT count() FROM red_10s")
            disk_mib = _size_mib(up.data)
        except Exception as error:
            raise RuntimeError(f"{type(error).__name__} {error}; {_state_of(up)}") from error
        finally:
            up.stop(signal.SIGKILL)
    measurement.note = (
        f"{sent['bytes'] / spans:.0f} B a span; sent in {sent_s:.1f} s by a load program that took {sent['cpu_s']:.1f} CPU s;"
        f" kept {ledger['kept'] / spans:.2%}; {rows / spans:.2f} red rows a span;"
        f" {disk_mib:,.0f} MiB on disk; {sent['retried']} refused and sent again"
    )
    if ledger["received"] != spans:
        raise RuntimeError(f"{spans} spans were sent, the ledger has {ledger}")
    return measurement


def _state_of(up: Up) -> str:
    """What a case that failed leaves behind for whoever reads its note."""
    try:
        alive = f"up is there, {_cpu_s(up):.0f} CPU s, peak {_peak_rss_mib(up):,.0f} MiB"
    except (OSError, StopIteration):  # gone, or a zombie without memory
        alive = "up has ended"
    log = up.folder / "up.log"
    return f"{alive}; the end of its log:\n{log.read_text()[-2000:] if log.exists() else '(none)'}"


def _load(target: str, spans: int, services: int, operations: int, rate: int) -> subprocess.Popen[str]:
    arguments = {
        "target": target,
        "spans": spans,
        "services": services,
        "operations": operations,
        "rate": rate,
    }
    arguments["spans-per-request"] = SPANS_PER_REQUEST
    command = [
        sys.executable,
        "-m",
        "benchmarks.send",
        "--wait",
        *(f"--{name}={value}" for name, value in arguments.items()),
    ]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _cpu_s(up: Up) -> float:
    """User + system seconds of both processes (proc(5), fields 14 to 17 of stat)."""
    stats = [Path(f"/proc/{pid}/stat").read_text() for pid in (up.pid, *up.back_pids())]
    fields = [stat.rpartition(")")[2].split() for stat in stats]
    return sum(sum(map(int, each[11:15])) for each in fields) / os.sysconf("SC_CLK_TCK")


def _peak_rss_mib(up: Up) -> float:
    return sum(map(peak_rss_mib, (up.pid, *up.back_pids())))


def _wait_until_idle(up: Up) -> None:
    """Merges in the background belong to the cost: wait until both take less than a tenth of a core."""
    before_s = _cpu_s(up)
    for _ in range(30):
        time.sleep(1)
        now_s = _cpu_s(up)
        if now_s - before_s < 0.1:
            return
        before_s = now_s


def _size_mib(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / (1 << 20)


CASES = [
    Case(
        f"end to end, {keys}{pace}",
        "up",
        run,
        {"spans": 1_000_000, "services": services, "operations": 10, "rate": rate},
    )
    for services, keys in ((100, "100 services"), (10_000, "10,000 services x 10 operations"))
    for rate, pace in ((0, ""), (50_000, ", at 50,000 spans/s"))
]
# the others end before the lookback of 60 s is full, and so before memory has stopped to grow
CASES.append(
    Case(
        "end to end, 100 services, at 50,000 spans/s for 90 s",
        "up",
        run,
        {"spans": 4_500_000, "services": 100, "operations": 10, "rate": 50_000},
    )
)

if __name__ == "__main__":
    main("End to end", CASES)
